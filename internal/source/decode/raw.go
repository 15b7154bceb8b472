package decode

import (
	"bytes"

	"github.com/apache/arrow-go/v18/arrow"
)

// rawDecoder gives the record as it is: key, value and headers.
type rawDecoder struct {
	key, value *varied
	headers    *list
}

var headerType = arrow.StructOf(
	arrow.Field{Name: "key", Type: arrow.BinaryTypes.String, Nullable: true},
	arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true},
)

// headersType is the type of a column of headers: a list, because a key may
// occur more than once.
var headersType = arrow.ListOfField(arrow.Field{Name: elementName, Type: headerType, Nullable: true})

func newRaw() *rawDecoder {
	return &rawDecoder{key: newVaried(arrow.BinaryTypes.Binary, nil), value: newVaried(arrow.BinaryTypes.Binary, nil), headers: newHeaders()}
}

func newHeaders() *list {
	pairs := &structure{kind: headerType, members: []column{newVaried(arrow.BinaryTypes.String, nil), newVaried(arrow.BinaryTypes.Binary, nil)}}
	return &list{kind: headersType, offsets: []int32{0}, elements: pairs}
}

// appendHeaders appends one value to a column of newHeaders. Kafka's protocol says
// that a header's key is UTF-8, but nobody checks; what is not is replaced by
// U+FFFD, because a column of text must be text.
func appendHeaders(c *list, headers []Header) {
	pairs := c.elements.(*structure)
	for _, h := range headers {
		pairs.members[0].(*varied).append(nonNil(bytes.ToValidUTF8(h.Key, []byte("\uFFFD"))))
		pairs.members[1].(*varied).append(h.Value)
		pairs.push(true)
	}
	c.offsets = append(c.offsets, int32(pairs.len()))
	c.push(true)
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (d *rawDecoder) Fields() []arrow.Field {
	return []arrow.Field{
		{Name: "key", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "headers", Type: headersType, Nullable: true},
	}
}

func (d *rawDecoder) Append(r Record) error {
	d.key.append(r.Key)
	d.value.append(r.Value)
	appendHeaders(d.headers, r.Headers)
	return nil
}

func (d *rawDecoder) Rows() int  { return d.key.len() }
func (d *rawDecoder) Bytes() int { return d.key.bytes() + d.value.bytes() + d.headers.bytes() }

func (d *rawDecoder) Take() []arrow.Array {
	return []arrow.Array{toArray(d.key.take()), toArray(d.value.take()), toArray(d.headers.take())}
}
