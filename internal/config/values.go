package config

import (
	"errors"
	"fmt"
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
func (b *Bytes) UnmarshalYAML(data []byte) (err error) {
	*b, err = ParseBytes(scalar(data))
	return err
}

// ParseBytes reads a size.
func ParseBytes(text string) (Bytes, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || n*u.bytes > 1<<62 {
			break
		}
		return Bytes(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size; write for instance 256MiB", text)
}

// Duration is a time span: 1s, 500ms, 7d.
type Duration time.Duration

// UnmarshalYAML reads a time span.
func (d *Duration) UnmarshalYAML(data []byte) error {
	text := scalar(data)
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
		return fmt.Errorf("%q is not a time span; write for instance 500ms, 10s, 5m or 7d", text)
	}
	*d = Duration(v)
	return nil
}

// scalar takes the quotes off a YAML scalar.
func scalar(data []byte) string {
	var s string
	if err := yaml.Unmarshal(data, &s); err == nil {
		return strings.TrimSpace(s)
	}
	return strings.TrimSpace(string(data))
}

// Start says where a pipeline begins to read.
type Start struct {
	Text    string                     // earliest, latest, or a timestamp
	Time    time.Time                  // of a timestamp
	Offsets map[string]map[int32]int64 // by topic and partition
}

// UnmarshalYAML reads a start.
func (s *Start) UnmarshalYAML(data []byte) error {
	if err := yaml.Unmarshal(data, &s.Offsets); err == nil && s.Offsets != nil {
		return nil
	}
	s.Offsets = nil
	s.Text = scalar(data)
	if s.Text == "earliest" || s.Text == "latest" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, s.Text)
	if err != nil {
		return fmt.Errorf("%q is not earliest, latest, a timestamp such as 2026-01-02T15:04:05Z, or offsets such as {clicks: {0: 120}}", s.Text)
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
		return errors.New("expected a mapping of names")
	}
	o.By = map[string]T{}
	for _, v := range m.Values {
		name := v.Key.GetToken().Value
		if _, ok := o.By[name]; ok {
			return fmt.Errorf("%q is there twice", name)
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

// Addresses are host:port. The YAML library takes an address inside of nested
// brackets, {brokers: [localhost:9092]}, for a mapping; this puts it together
// again.
type Addresses []string

// UnmarshalYAML reads a list of addresses.
func (a *Addresses) UnmarshalYAML(node ast.Node) error {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return errors.New("expected a list, such as [localhost:9092]")
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
