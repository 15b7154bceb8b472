package batch_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestPlanHashIsKept: a table's stamp names the hash of a logged plan, so a plan
// that has none of the keys that came later keeps the hash that it always had.
func TestPlanHashIsKept(t *testing.T) {
	tp := batch.TopicPartition{Source: "s", Topic: "t", TopicID: "id"}
	p := &batch.Plan{
		Incarnation: batch.Incarnation{UUID: "u", Name: "p", ID: "i", Kind: batch.First}, Entry: 3, Batch: 2,
		Ranges: []batch.Range{{TopicPartition: tp, Start: 5, End: 9, Epoch: 1}}, Time: time.Unix(1_700_000_000, 0).UTC(),
		Versions: map[string]string{"d": "7"},
		Sinks:    []batch.SinkPlan{{Name: "k", Hash: "h", Active: true, From: batch.Offsets{tp: 5}}},
		Writer:   batch.Writer{ID: "w", Host: "h", PID: 1},
	}
	const was = "f9258b3e2f8f218b76ac7152d73ea40cbf2bbc6926b9e4c665d65bd22ddc266e"
	if got := p.Hash(); got != was {
		t.Errorf("the hash is %s, was %s", got, was)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var read batch.Plan
	if err := json.Unmarshal(data, &read); err != nil || read.Hash() != was {
		t.Errorf("read back it has the hash %s: %v", read.Hash(), err)
	}
	p.Readers = map[string]int32{"s": 7}
	if p.Hash() == was {
		t.Error("the reader schema is no part of the hash")
	}
}
