package decode

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

const clickProto = `syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Click {
  int64 user_id = 1; string event = 2; google.protobuf.Timestamp event_time = 3; string page = 4;
  string session = 5; int32 duration_ms = 6; double price = 7; string referrer = 8;
}
message Order {
  enum State { OPEN = 0; PAID = 1; SENT = 2; }
  message Item { string sku = 1; int32 count = 2; double price = 3; }
  message Address { string street = 1; string city = 2; optional string state = 3; string country = 4; }
  int64 id = 1; State state = 2; Address address = 3; repeated Item items = 4; map<string, string> labels = 5;
  repeated sint32 codes = 6; oneof payment { string card = 7; string iban = 8; } google.protobuf.Timestamp at = 9; bool gift = 10;
}`

// BenchmarkProtobuf reports MB/s of payload: a flat message like the JSON
// decoder's, and one with everything nested.
func BenchmarkProtobuf(b *testing.B) {
	for _, c := range []struct{ message, value string }{
		{"Click", `{"user_id":123456,"event":"click","event_time":"2026-01-01T00:00:00.123456Z","page":"/products/4711/details","session":"0123456789abcdef","duration_ms":12345,"price":123.45,"referrer":"https://www.example.com/search?q=ice"}`},
		{"Order", `{"id":918273645,"state":"PAID","address":{"street":"12 Long Lane","city":"Springfield","country":"US"},"items":[{"sku":"AB-12345","count":2,"price":9.99},{"sku":"CD-67890","count":1,"price":149.5},{"sku":"EF-11111","count":12,"price":0.25}],
			"labels":{"channel":"web","campaign":"winter"},"codes":[1,-20,300,-4000],"card":"4111111111111111","at":"2026-01-01T00:00:00.123456Z"}`},
	} {
		b.Run(c.message, func(b *testing.B) {
			d, md := protobuf(b, Options{Reader: Schema{Type: TypeProtobuf, Text: clickProto}, Message: c.message})
			m := dynamicpb.NewMessage(md)
			if err := protojson.Unmarshal([]byte(c.value), m); err != nil {
				b.Fatal(err)
			}
			value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				b.Fatal(err)
			}
			decodes(b, d, Record{Value: value})
		})
	}
}
