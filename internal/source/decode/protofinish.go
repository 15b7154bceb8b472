package decode

import (
	"bytes"
	"cmp"
	"slices"
)

// What is left to do where a message ends: parts of messages that came in several,
// values for what is absent, and the last of the entries of a map with one key.

// finish ends a message: what was put off is read, what is absent gets its value.
func (d *protoWire) finish(m *wireMessage, start, end, depth, row int) error {
	n := m.node
	if n.pending > 0 {
		if err := d.late(m, depth, row); err != nil {
			return err
		}
	}
	for _, f := range m.maps {
		if err := d.unique(n, f, start, end, depth); err != nil {
			return err
		}
	}
	for _, l := range n.lists {
		l.end()
	}
	if n.there < n.singles {
		if err := d.fill(n, end, depth); err != nil {
			return err
		}
	}
	switch {
	case n.column != nil:
		n.column.push(true)
	case n.flag != nil:
		n.flag.values = append(n.flag.values, 1)
		n.flag.push(true)
	}
	return nil
}

// fill gives the fields that are absent their values.
func (d *protoWire) fill(n *protoNode, end, depth int) error {
	for i := range n.slots {
		s := &n.slots[i]
		if s.list != nil || s.seen == n.object {
			continue
		}
		switch s.absent {
		case absentNull, absentList:
			s.column.null()
		case absentDefault:
			s.cell.absent(s.zero, s.text)
		case absentError:
			return d.fail(end, "field %q is required, and missing", s.name)
		case absentEmpty:
			if err := d.nothing(s, depth); err != nil {
				return named(err, s.name)
			}
		}
	}
	return nil
}

// nothing appends a message of no bytes.
func (d *protoWire) nothing(s *protoSlot, depth int) error {
	if s.node != nil {
		return d.decode(s.node.empty, 0, 0, depth+1)
	}
	return d.known(s.cell, 0, 0, depth+1)
}

// late reads the messages that were put off, and those in parts.
func (d *protoWire) late(m *wireMessage, depth, row int) error {
	n := m.node
	for _, f := range m.fields {
		if f.repeated {
			continue
		}
		s := &n.slots[f.slot]
		var err error
		switch {
		case s.merging == n.object:
			s.column.cut(row)
			b, fixed := d.b, d.fixed
			if d.b = s.merged; fixed < 0 {
				d.fixed = s.start
			}
			if err = d.spend(len(s.merged), 0); err == nil {
				err = d.into(f, 0, len(s.merged), depth)
			}
			d.b, d.fixed = b, fixed
			if cap(s.merged) > mergedKept {
				s.merged = nil
			}
		case s.deferred == n.object:
			err = d.into(f, s.start, s.end, depth)
		}
		if err != nil {
			return named(err, s.name)
		}
	}
	return nil
}

// unique takes those entries of a map back that a later one with the same key
// replaces: where there are any, the message is read once more for the others.
func (d *protoWire) unique(n *protoNode, f *wireField, i, end, depth int) error {
	s := &n.slots[f.slot]
	first := int(s.list.offsets[len(s.list.offsets)-1])
	entries := s.node.rows() - first
	if entries < 2 || !d.replaced(s.keys, first, entries) {
		return nil
	}
	if err := d.spend(end-i, i); err != nil {
		return err
	}
	s.node.column.cut(first)
	for entry := 0; i < end; {
		number, wire, next, err := d.tag(i, end)
		if err != nil {
			return err
		}
		if i, err = d.skip(number, wire, next, end, depth); err != nil {
			return err
		}
		if number != f.number {
			continue
		}
		if d.keep[entry] {
			start, stop, _, err := d.span(f, next, end, depth)
			if err != nil {
				return err
			}
			keep := d.keep // of this map; a map inside of the value has its own
			d.keep = nil
			err = d.into(f, start, stop, depth)
			d.keep = keep
			if err != nil {
				return named(err, s.name)
			}
		}
		entry++
	}
	return nil
}

// fewEntries are compared each with each.
const fewEntries = 8

// replaced says whether keys are there twice, and notes in d.keep which entries
// are the last of their key.
func (d *protoWire) replaced(keys column, first, entries int) bool {
	d.order = d.order[:0]
	if entries <= fewEntries {
		twice := false
		for i := first; i < first+entries && !twice; i++ {
			for j := i + 1; j < first+entries && !twice; j++ {
				twice = compareKeys(keys, i, j) == 0
			}
		}
		if !twice {
			return false
		}
	}
	for i := range entries {
		d.order = append(d.order, int32(first+i))
	}
	slices.SortFunc(d.order, func(a, b int32) int {
		return cmp.Or(compareKeys(keys, int(a), int(b)), cmp.Compare(a, b))
	})
	d.keep = append(d.keep[:0], make([]bool, entries)...)
	twice := false
	for i, at := range d.order {
		last := i+1 == entries || compareKeys(keys, int(at), int(d.order[i+1])) != 0
		d.keep[int(at)-first] = last
		twice = twice || !last
	}
	return twice
}

// compareKeys orders two keys of a map.
func compareKeys(keys column, i, j int) int {
	switch c := keys.(type) {
	case *fixed[int32]:
		return cmp.Compare(c.values[i], c.values[j])
	case *fixed[int64]:
		return cmp.Compare(c.values[i], c.values[j])
	case *fixed[uint64]:
		return cmp.Compare(c.values[i], c.values[j])
	case *boolean:
		return cmp.Compare(c.values[i], c.values[j])
	case *varied:
		return bytes.Compare(c.data[c.offsets[i]:c.offsets[i+1]], c.data[c.offsets[j]:c.offsets[j+1]])
	}
	panic("decode: a map has keys that are no keys")
}
