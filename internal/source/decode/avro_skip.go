package decode

// avroSkips are the functions that skip values, by type: a recursive type skips
// itself.
type avroSkips map[*avroType]*avroOp

// skip returns what consumes a value of a type and does nothing with it.
func (s avroSkips) skip(t *avroType) avroOp {
	switch t.kind {
	case avroNull:
		return func(*avroInput) error { return nil }
	case avroBoolean:
		return skipFixed(1)
	case avroFloat:
		return skipFixed(4)
	case avroDouble:
		return skipFixed(8)
	case avroFixed:
		return skipFixed(t.size)
	case avroBytes, avroString:
		return func(in *avroInput) error {
			_, err := in.bytes()
			return err
		}
	case avroInt, avroLong, avroEnum:
		return func(in *avroInput) error {
			_, err := in.long()
			return err
		}
	case avroArray:
		return s.skipBlocks(t.items, false)
	case avroMap:
		return s.skipBlocks(t.items, true)
	case avroUnion:
		return s.skipUnion(t)
	case avroRecord:
	}
	return s.skipRecord(t)
}

func skipFixed(n int) avroOp {
	return func(in *avroInput) error {
		_, err := in.take(n, "a value")
		return err
	}
}

func (s avroSkips) skipRecord(t *avroType) avroOp {
	if known := s[t]; known != nil {
		return func(in *avroInput) error { return (*known)(in) }
	}
	var op avroOp
	s[t] = &op
	fields := make([]avroOp, len(t.fields))
	for i, f := range t.fields {
		fields[i] = s.skip(f.typ)
	}
	op = func(in *avroInput) error {
		if in.depth++; in.depth > depthMax {
			return in.fail(in.i, "values are nested more than %d deep", depthMax)
		}
		for _, f := range fields {
			if err := f(in); err != nil {
				return err
			}
		}
		in.depth--
		return nil
	}
	return op
}

func (s avroSkips) skipUnion(t *avroType) avroOp {
	branches := make([]avroOp, len(t.branches))
	for i, b := range t.branches {
		branches[i] = s.skip(b)
	}
	return func(in *avroInput) error {
		i, err := in.branch(len(branches))
		if err != nil {
			return err
		}
		return branches[i](in)
	}
}

// skipBlocks skips an array, or a map. Blocks that say how long they are are
// skipped as a whole.
func (s avroSkips) skipBlocks(items *avroType, keys bool) avroOp {
	item, least := s.skip(items), items.least
	if keys {
		least++
	}
	return func(in *avroInput) error {
		for {
			n, end, err := in.block(least, 0)
			if n == 0 || err != nil {
				return err
			}
			if end >= 0 {
				in.i = end
				continue
			}
			if least == 0 { // there is nothing to skip
				continue
			}
			for range n {
				if keys {
					if _, err := in.bytes(); err != nil {
						return err
					}
				}
				if err := item(in); err != nil {
					return err
				}
			}
		}
	}
}
