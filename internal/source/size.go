package source

import (
	"context"

	"github.com/frazil-io/frazil/internal/batch"
)

// size tells how many bytes of key and value came with how many offsets of a
// partition; later fetches weigh more.
type size struct{ bytes, offsets float64 }

// sizeDecay is how much of the past counts after another fetch.
const sizeDecay = 0.9

// learn notes the size of what was fetched of a partition.
func (r *relation) learn(tp batch.TopicPartition, bytes, offsets int64) {
	if offsets <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.sizes[tp]
	r.sizes[tp] = size{was.bytes*sizeDecay + float64(bytes), was.offsets*sizeDecay + float64(offsets)}
}

// estimate fills in how large an offset is: as fetched of this partition, else
// as of its topic's others.
func (r *relation) estimate(all []batch.Available) {
	r.mu.Lock()
	defer r.mu.Unlock()
	means := map[string]size{}
	for _, a := range all {
		s, m := r.sizes[a.TopicPartition], means[a.Topic]
		means[a.Topic] = size{m.bytes + s.bytes, m.offsets + s.offsets}
	}
	for i := range all {
		s := r.sizes[all[i].TopicPartition]
		if s.offsets == 0 {
			s = means[all[i].Topic]
		}
		if s.offsets > 0 {
			all[i].Bytes = s.bytes / s.offsets
		}
	}
}

// A probe looks at the records near the end of some partitions of a topic, once,
// so that the limits of the first plan hold. What it costs is bounded.
const (
	probePartitions     = 16
	probeOffsets        = 1000
	probePartitionBytes = 64 << 10
	probeBytes          = 1 << 20
)

// probe learns the sizes in topics of which nothing was fetched yet. They are
// estimates: a failure is not the listing's, and is not tried again.
func (r *relation) probe(ctx context.Context, topics map[string]topic, all []batch.Available) {
	led := map[int32][]*share{}
	count := map[string]int{}
	r.mu.Lock()
	for _, a := range all {
		if r.probed[a.TopicID+a.Topic] || a.Start == a.End || count[a.Topic] == probePartitions {
			continue
		}
		count[a.Topic]++
		l := topics[a.Topic].leaders[a.Partition]
		led[l.broker] = append(led[l.broker], &share{
			Range: batch.Range{TopicPartition: a.TopicPartition, Start: a.Start, End: a.End}, next: max(a.Start, a.End-probeOffsets),
		})
	}
	for _, shares := range led {
		for _, s := range shares {
			r.probed[s.TopicID+s.Topic] = true
		}
	}
	r.mu.Unlock()
	for broker, shares := range led {
		resp, err := r.request(ctx, broker, shares, topics, fetchSize{wait: 0, response: probeBytes, partition: probePartitionBytes})
		if err != nil {
			r.log.Debug("sizes of records could not be probed", "broker", broker, "error", err)
			continue
		}
		for _, t := range resp.Topics {
			for i := range t.Partitions {
				if s := findShare(shares, topics, t, t.Partitions[i].Partition); s != nil {
					r.measure(s, t.Partitions[i].RecordBatches)
				}
			}
		}
	}
}

// measure adds up keys and values of a partition's bytes.
func (r *relation) measure(s *share, in []byte) {
	unpack := newUnpacker()
	var bytes, offsets int64
	for len(in) > 0 {
		b, rest, err := nextBatch(in)
		if err != nil {
			break
		}
		in = rest
		data, err := unpack.records(b)
		if err != nil {
			break
		}
		offsets += b.last - b.base + 1
		if b.control() {
			continue
		}
		for c := b.walk(data, nil); c.next(); {
			bytes += int64(len(c.Key) + len(c.Value))
		}
	}
	r.learn(s.TopicPartition, bytes, offsets)
}
