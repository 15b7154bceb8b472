package source

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/frazil-io/frazil/internal/batch"
)

// partedAt answers that every epoch ended at an offset. It returns how often it
// was asked.
func partedAt(c *kfake.Cluster, end int64) *int {
	asked := new(int)
	c.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		*asked++
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, t := range req.(*kmsg.OffsetForLeaderEpochRequest).Topics {
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, p.LeaderEpoch, end
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	return asked
}

// TestUncleanElection: another log has other records at offsets that were read or
// planned, and is as long: its end tells nothing, the end of the epoch does.
func TestUncleanElection(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   int64 // of the epoch, as the new leader knows it
		lists int64
		lost  bool
	}{
		{"a clean election", 10, 20, false},
		{"the leader does not know", -1, 20, false},
		{"the log parted before what was read", 6, 6, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := cluster(t, 1)
			send(t, client(t, cl), ids(0, 0, 10)...)
			s := open(t, cl, nil)
			planned := all(t, s)
			bounce(t, cl)
			send(t, client(t, cl), ids(0, 10, 20)...)
			asked := partedAt(cl, c.end)
			s.clock.Sleep(t.Context(), topicsEvery)
			for range 3 {
				now, err := s.List(t.Context(), planned)
				if err != nil {
					t.Fatal(err)
				}
				if now[0].End != c.lists {
					t.Errorf("listed %+v, want the end %d", now[0], c.lists)
				}
			}
			if want := 1; !c.lost && *asked != want {
				t.Errorf("asked %d times, want %d", *asked, want)
			}
			tally, err := s.Read(t.Context(), planned, newReading().emit(planned), nil)
			if errors.Is(err, batch.ErrDataLost) != c.lost || !c.lost && (err != nil || tally.Rows != 10) {
				t.Errorf("read: %+v %v", tally, err)
			}
			if c.lost && !strings.Contains(err.Error(), "ends at offset 6, but had listed 10") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestElectionWithoutEpochEnds: a service that does not know the request is read
// all the same.
func TestElectionWithoutEpochEnds(t *testing.T) {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.OffsetForLeaderEpoch.Int16(), -1)
	c := cluster(t, 1, kfake.MaxVersions(versions))
	send(t, client(t, c), ids(0, 0, 10)...)
	s := open(t, c, nil)
	planned := all(t, s)
	bounce(t, c)
	s.clock.Sleep(t.Context(), topicsEvery)
	if _, err := s.List(t.Context(), planned); err != nil {
		t.Error(err)
	}
	if tally := read(t, s, planned, newReading()); tally.Rows != 10 {
		t.Errorf("%+v", tally)
	}
}

// TestTopicTakenOut: a topic, or a whole source, that the spec no longer reads
// keeps its place in the plans and is not asked for.
func TestTopicTakenOut(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 10)...)
	s := open(t, c, nil)
	since := all(t, s)
	for _, gone := range []batch.TopicPartition{
		{Source: "clicks", Topic: "old", TopicID: "x", Partition: 3}, {Source: "views", Topic: topicName, Partition: 1},
	} {
		since = append(since, batch.Range{TopicPartition: gone, Start: 40, End: 50, Epoch: 2})
	}
	available, err := s.List(t.Context(), since)
	if err != nil {
		t.Fatal(err)
	}
	if len(available) != 3 || available[0].End != 10 {
		t.Fatalf("%+v", available)
	}
	ranges := since[:1]
	for _, a := range available[1:] {
		if a.Start != 50 || a.End != 50 {
			t.Errorf("%+v", a)
		}
		ranges = append(ranges, batch.Range{TopicPartition: a.TopicPartition, Start: 50, End: 50, Epoch: a.Epoch})
	}
	if tally := read(t, s, ranges, newReading()); tally.Rows != 10 || tally.Offsets != 10 {
		t.Errorf("%+v", tally)
	}
}
