package spectest

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// schemasFolder has the schemas of a registry, in a case or beside the spec.
const schemasFolder = "schemas"

// formats of schemas by the ending of their file.
var formats = map[string]string{".avsc": "avro", ".proto": "protobuf", ".json": "json"}

// endingOf is the ending of files with schemas of a format.
func endingOf(format string) string {
	for ending, of := range formats {
		if of == format {
			return ending
		}
	}
	return ""
}

// schemaFile is one version of a subject.
type schemaFile struct {
	subject string
	version int
	path    string
}

// versioned is a name with the number of a version at its end.
var versioned = regexp.MustCompile(`^(.+)\.([0-9]{1,4})$`)

// schemaFiles are those of a case, and those beside the spec whose subjects the case
// does not have.
func (w *world) schemaFiles() (all []schemaFile, err error) {
	seen := map[string]string{} // folders by subject
	for _, dir := range []string{filepath.Join(w.c.dir, schemasFolder), filepath.Join(w.suite.dir, schemasFolder)} {
		for _, path := range files(dir) {
			if formats[filepath.Ext(path)] == "" {
				return nil, fmt.Errorf("%w: %s: a schema is a file SUBJECT.avsc, .proto or .json", batch.ErrInvalid, path)
			}
			f := schemaFile{subject: stem(path), version: 1, path: path}
			if m := versioned.FindStringSubmatch(f.subject); m != nil {
				f.subject = m[1]
				f.version, _ = strconv.Atoi(m[2])
			}
			if in, ok := seen[f.subject]; ok && in != dir {
				continue
			}
			seen[f.subject] = dir
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b schemaFile) int {
		return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.version, b.version), cmp.Compare(a.path, b.path))
	})
	return all, nil
}

// schemas starts a registry with the schemas of the case, and lets the spec's sources
// ask it in place of their own.
func (w *world) schemas() (*srfake.Registry, error) {
	all, err := w.schemaFiles()
	if err != nil {
		return nil, err
	}
	w.written = map[string][]decode.Schema{}
	r := srfake.New()
	id := 0
	for _, f := range all {
		if err := w.register(r, f, &id); err != nil {
			r.Close()
			return nil, fmt.Errorf("%w: %s: %w", batch.ErrInvalid, f.path, err)
		}
	}
	for name, s := range w.spec.Sources.By {
		if err := w.asks(&s, r.URL()); err != nil {
			r.Close()
			return nil, fmt.Errorf("%w: source %s: %w", batch.ErrInvalid, name, err)
		}
		w.spec.Sources.By[name] = s
	}
	return r, nil
}

// register adds a schema, behind the files that it imports.
func (w *world) register(r *srfake.Registry, f schemaFile, id *int) error {
	if f.version != len(w.written[f.subject])+1 {
		return fmt.Errorf("it is version %d of subject %s, and there are %d before: versions are 1, 2, 3 …", f.version, f.subject, len(w.written[f.subject]))
	}
	format := formats[filepath.Ext(f.path)]
	s, err := pipeline.SchemaFile(format, f.path)
	if err != nil {
		return err
	}
	entry := sr.Schema{Schema: s.Text, Type: map[string]sr.SchemaType{"avro": sr.TypeAvro, "protobuf": sr.TypeProtobuf, "json": sr.TypeJSON}[format]}
	for _, name := range slices.Sorted(maps.Keys(s.References)) {
		*id++
		subject := fmt.Sprintf("%s imports %s in version %d", f.subject, name, f.version)
		r.SeedSchema(subject, 1, *id, sr.Schema{Schema: s.References[name].Text, Type: entry.Type})
		entry.References = append(entry.References, sr.SchemaReference{Name: name, Subject: subject, Version: 1})
	}
	*id++
	s.ID = int32(*id)
	r.SeedSchema(f.subject, f.version, *id, entry)
	w.written[f.subject] = append(w.written[f.subject], s)
	return nil
}

// asks lets a source ask the registry at an address.
func (w *world) asks(s *config.Source, address string) error {
	at := func(r *config.Registry, format, columns string) (*config.Registry, error) {
		if r == nil {
			return nil, nil
		}
		if columns == "" && len(w.written[r.Subject]) == 0 {
			return nil, fmt.Errorf("its registry is none that a case asks: write the schema of subject %q to %s, or to %s for all cases",
				r.Subject, filepath.Join(w.c.dir, schemasFolder, r.Subject+endingOf(format)), filepath.Join(w.suite.dir, schemasFolder))
		}
		return &config.Registry{URL: config.URLs{address}, Subject: r.Subject, Version: r.Version}, nil
	}
	var err error
	if s.Registry, err = at(s.Registry, s.Format, s.Columns); err != nil || s.Key == nil {
		return err
	}
	key := *s.Key
	if key.Registry, err = at(key.Registry, key.Format, key.Columns); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	s.Key = &key
	return nil
}

// encoders make the keys and values of one topic.
type encoders struct {
	w          *world
	topic      string
	value, key config.Source
	made       map[string]decode.Encoder
}

// encoders are those of the source that reads a topic.
func (w *world) encoders(topic string) *encoders {
	e := &encoders{w: w, topic: topic, made: map[string]decode.Encoder{}}
	for _, name := range w.spec.Sources.Names {
		s := w.spec.Sources.By[name]
		pattern, err := regexp.Compile(s.Kafka.TopicPattern)
		if !slices.Contains(s.Kafka.Topics, topic) && (s.Kafka.TopicPattern == "" || err != nil || !pattern.MatchString(topic)) {
			continue
		}
		e.value = s
		if s.Key != nil {
			e.key = s.Key.Source()
		}
		break
	}
	return e
}

// record encodes what is JSON of a record.
func (e *encoders) record(r record) (record, error) {
	for _, part := range []struct {
		what    string
		of      *payload
		s       config.Source
		version int
	}{{"value", &r.Value, e.value, r.Schema}, {"key", &r.Key, e.key, 0}} {
		if !part.of.encoded {
			continue
		}
		encode, err := e.of(part.what, part.s, part.version)
		if err == nil {
			part.of.data, err = encode(part.of.data)
		}
		if err != nil {
			return r, fmt.Errorf("%w: %s: the %s cannot be encoded as %s: %w", batch.ErrInvalid, r.at, part.what, part.s.Format, err)
		}
	}
	return r, nil
}

// of is the encoder of a topic's values or keys for a version of their subject, 0 for
// the newest one.
func (e *encoders) of(what string, s config.Source, version int) (decode.Encoder, error) {
	name := what + strconv.Itoa(version)
	if have := e.made[name]; have != nil {
		return have, nil
	}
	written, err := e.schema(what, s, version)
	if err != nil {
		return nil, err
	}
	made, err := decode.NewEncoder(s.Format, written, decode.Options{Framing: s.Options.Framing, Message: s.Options.Message, Encoding: s.Options.Encoding})
	if err != nil {
		return nil, err
	}
	e.made[name] = made
	return made, nil
}

// schema is what a record is written with: of the topic's own subject, where it has
// one, else of the source's.
func (e *encoders) schema(what string, s config.Source, version int) (decode.Schema, error) {
	switch {
	case s.SchemaFile != "":
		return pipeline.SchemaFile(s.Format, s.SchemaFile)
	case s.Registry == nil:
		return decode.Schema{}, nil
	}
	subject := e.topic + "-" + what
	if len(e.w.written[subject]) == 0 {
		subject = s.Registry.Subject
	}
	all := e.w.written[subject]
	switch {
	case len(all) == 0:
		return decode.Schema{ID: 1}, nil // columns of the spec, which pass over the id
	case version < 0 || version > len(all):
		return decode.Schema{}, fmt.Errorf("subject %q has no version %d here, but %d", subject, version, len(all))
	case version == 0:
		version = len(all)
	}
	return all[version-1], nil
}
