package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Bytes is a size: 256MiB, 512MB, 1000.
type Bytes int64

var units = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// UnmarshalYAML reads a size.
func (b *Bytes) UnmarshalYAML(node ast.Node) (err error) {
	*b, err = ParseBytes(scalar(node))
	return at(node, err)
}

// ParseBytes reads a size.
func ParseBytes(text string) (Bytes, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(n) || n < 0 || n*u.bytes > 1<<62 {
			break
		}
		return Bytes(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size; write for instance 256MiB", text)
}

// Duration is a time span: 1s, 500ms, 7d.
type Duration time.Duration

// String writes a time span.
func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalYAML reads a time span.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	text := scalar(node)
	if text == "0" {
		*d = 0
		return nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err == nil && n >= 0 && n < 1e5 {
			*d = Duration(n * 24 * float64(time.Hour))
			return nil
		}
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return at(node, fmt.Errorf("%q is not a time span; write for instance 500ms, 10s, 5m or 7d", text))
	}
	*d = Duration(v)
	return nil
}

// scalar is the text of a YAML scalar, with its variables replaced.
func scalar(node ast.Node) string {
	switch n := node.(type) {
	case *ast.StringNode:
		return strings.TrimSpace(n.Value)
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value)
	}
	return strings.TrimSpace(node.String())
}

// valueError is a mistake in one value.
type valueError struct {
	position
	err error
}

func (e *valueError) Error() string { return e.err.Error() }

// Unwrap leads to what is wrong.
func (e *valueError) Unwrap() error { return e.err }

// at notes where a value stands that is wrong.
func at(node ast.Node, err error) error {
	if err == nil {
		return nil
	}
	e := &valueError{err: err}
	if t := node.GetToken(); t != nil && t.Position != nil {
		e.position = position{t.Position.Line, t.Position.Column}
	}
	return e
}

// Start says where a pipeline begins to read.
type Start struct {
	Text    string                     // earliest, latest, or a timestamp
	Time    time.Time                  // of a timestamp
	Offsets map[string]map[int32]int64 // by topic and partition
}

// UnmarshalYAML reads a start.
func (s *Start) UnmarshalYAML(node ast.Node) error {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		if err := yaml.NodeToValue(node, &s.Offsets); err != nil {
			return at(node, errors.New("offsets are written by topic and partition, such as {clicks: {0: 120}}"))
		}
		for topic, offsets := range s.Offsets {
			for partition, offset := range offsets {
				if partition < 0 || offset < 0 {
					return at(node, fmt.Errorf("partition %d of %s at %d: neither is negative", partition, topic, offset))
				}
			}
		}
		return nil
	}
	s.Text = scalar(node)
	if s.Text == "earliest" || s.Text == "latest" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, s.Text)
	if err != nil {
		return at(node, fmt.Errorf("%q is not earliest, latest, a timestamp such as 2026-01-02T15:04:05Z, or offsets such as {clicks: {0: 120}}", s.Text))
	}
	s.Time = t
	return nil
}

// Ordered is a mapping that keeps the order of the file.
type Ordered[T any] struct {
	Names []string
	By    map[string]T
}

// UnmarshalYAML reads a mapping.
func (o *Ordered[T]) UnmarshalYAML(node ast.Node) error {
	m, ok := node.(*ast.MappingNode)
	if !ok {
		return at(node, errors.New("expected a mapping: a name, a colon, and what it stands for"))
	}
	o.By = map[string]T{}
	for _, v := range m.Values {
		name := v.Key.GetToken().Value
		if _, ok := o.By[name]; ok {
			return at(v.Key, fmt.Errorf("%q is there twice", name))
		}
		var item T
		if err := yaml.NodeToValue(v.Value, &item, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
			return err
		}
		o.Names = append(o.Names, name)
		o.By[name] = item
	}
	return nil
}

// Audit is a rule over a batch: a SELECT, or an object with one.
type Audit struct {
	SQL    string `yaml:"sql"`
	OnFail string `yaml:"on_fail"`
}

// UnmarshalYAML reads either form.
func (a *Audit) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.MappingNode); !ok {
		return yaml.NodeToValue(node, &a.SQL)
	}
	type object Audit
	return yaml.NodeToValue(node, (*object)(a), yaml.Strict(), yaml.DisallowUnknownField())
}

// Holds says whether an audit can make dead letters of a batch.
func (s *Sink) Holds() bool {
	for _, a := range s.Audit.By {
		if a.OnFail == "dead_letter" {
			return true
		}
	}
	return false
}

// Addresses are host:port. The YAML library takes an address inside of nested
// brackets, {brokers: [localhost:9092]}, for a mapping; this puts it together
// again.
type Addresses []string

// UnmarshalYAML reads a list of addresses.
func (a *Addresses) UnmarshalYAML(node ast.Node) error {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return at(node, errors.New("expected a list, such as [localhost:9092]"))
	}
	*a = nil
	for _, v := range list.Values {
		if m, ok := v.(*ast.MappingNode); ok && len(m.Values) == 1 {
			v = m.Values[0]
		}
		if pair, ok := v.(*ast.MappingValueNode); ok {
			*a = append(*a, pair.Key.GetToken().Value+":"+pair.Value.GetToken().Value)
			continue
		}
		var s string
		if err := yaml.NodeToValue(v, &s); err != nil {
			return err
		}
		*a = append(*a, s)
	}
	return nil
}

// URLs are addresses of one server: one, or a list.
type URLs []string

// UnmarshalYAML reads an address or a list of them.
func (u *URLs) UnmarshalYAML(node ast.Node) error {
	if list, ok := node.(*ast.SequenceNode); ok {
		*u = nil
		for _, v := range list.Values {
			*u = append(*u, scalar(v))
		}
		return nil
	}
	*u = URLs{scalar(node)}
	return nil
}

// Version is that of a subject: 0, the newest one, or a number from 1.
type Version int

// UnmarshalYAML reads a version.
func (v *Version) UnmarshalYAML(node ast.Node) error {
	text := scalar(node)
	if text == "latest" {
		*v = 0
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return at(node, fmt.Errorf("%q is not latest or the number of a version", text))
	}
	*v = Version(n)
	return nil
}
