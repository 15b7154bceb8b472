package config

import (
	"regexp"
	"slices"
	"strings"
)

// Template is the name of a sink's table with columns in it, as in
// raw.${_topic}: the rows choose the table.
type Template struct {
	Namespace []string
	// Texts stand before, between and behind the columns: there is one more.
	Texts   []string
	Columns []string
}

// column is ${column} in the name of a sink's table.
var column = regexp.MustCompile(`\$\{([^}]*)\}`)

// environment is ${NAME}, ${NAME:-default} or ${file:/path} where a column may
// stand, too: the names of variables are written in capitals there.
var environment = regexp.MustCompile(`^([A-Z][A-Z0-9_]*(:-.*)?|file:.*)$`)

// Template returns the columns in the table's name; ok is false where it has none.
func (i *Iceberg) Template() (t Template, ok bool) {
	parts := dots(i.Table)
	t.Namespace = parts[:len(parts)-1]
	name := parts[len(parts)-1]
	at := 0
	for _, m := range column.FindAllStringSubmatchIndex(name, -1) {
		t.Texts = append(t.Texts, name[at:m[0]])
		t.Columns = append(t.Columns, name[m[2]:m[3]])
		at = m[1]
	}
	t.Texts = append(t.Texts, name[at:])
	return t, column.MatchString(i.Table)
}

// dots divides a name at dots outside of ${…}.
func dots(name string) []string {
	held := column.ReplaceAllStringFunc(name, func(m string) string { return strings.ReplaceAll(m, ".", "\x00") })
	parts := strings.Split(held, ".")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "\x00", ".")
	}
	return parts
}

var templateText = regexp.MustCompile(`^[a-z0-9_]*$`)

// maxTables is how many tables a sink makes where the spec does not say: more are
// seldom meant.
const maxTables = 1000

// template checks the name of a table with columns in it.
func (p *parse) template(path string, i *Iceberg) {
	t, ok := i.Template()
	if !ok {
		if i.MaxTables != 0 {
			p.fail(path+".max_tables", "table %s is one table; max_tables is for a table with a column in its name, such as raw.${_topic}", i.Table)
		}
		return
	}
	if i.MaxTables == 0 {
		i.MaxTables = maxTables
	}
	if i.MaxTables < 0 {
		p.fail(path+".max_tables", "%d is no number of tables", i.MaxTables)
	}
	if slices.ContainsFunc(t.Namespace, column.MatchString) {
		p.fail(path+".table", "%q chooses the namespace by a column; choose the table, behind the last dot, and write one namespace", i.Table)
		return
	}
	for _, c := range t.Columns {
		if strings.TrimSpace(c) == "" {
			p.fail(path+".table", "%q: write the name of a column of the SELECT into ${}", i.Table)
		}
	}
	for _, text := range t.Texts {
		if !templateText.MatchString(text) {
			p.fail(path+".table", "%q: beside the column stand lower-case letters, digits and underscores, as in all names of tables that rows choose", i.Table)
		}
	}
	if i.Branch != "main" {
		p.fail(path+".branch", "tables that rows choose are written in their main branch; leave branch out")
	}
}

// may says whether rows can choose a table of this name.
func (t Template) may(table string) bool {
	pattern := &strings.Builder{}
	for i, text := range t.Texts {
		if i > 0 {
			pattern.WriteString("[a-z0-9_]+")
		}
		pattern.WriteString(regexp.QuoteMeta(text))
	}
	name := append(slices.Clone(t.Namespace), "")
	prefix := strings.Join(name, ".")
	return strings.HasPrefix(table, prefix) && regexp.MustCompile("^"+pattern.String()+"$").MatchString(strings.TrimPrefix(table, prefix))
}

// apart refuses two sinks one of which can write the other's table.
func (p *parse) apart(s *Spec) {
	for n, name := range s.Sinks.Names {
		one := s.Sinks.By[name].Iceberg
		t, routed := Template{}, false
		if one != nil {
			t, routed = one.Template()
		}
		if !routed {
			continue
		}
		for m, other := range s.Sinks.Names {
			i := s.Sinks.By[other].Iceberg
			if i == nil || m == n || i.Catalog != one.Catalog {
				continue
			}
			u, both := i.Template()
			switch {
			case both && m < n && slices.Equal(t.Namespace, u.Namespace):
				p.fail("sinks."+name+".iceberg.table", "sink %s has tables that its rows choose in namespace %s, too; give each such sink a namespace of its own", other, strings.Join(t.Namespace, "."))
			case !both && t.may(i.Table):
				p.fail("sinks."+name+".iceberg.table", "a row could choose %s, the table of sink %s; give one of them another namespace", i.Table, other)
			}
		}
	}
}
