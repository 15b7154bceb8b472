//go:build integration && soak

package integration

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	soakFor  = flag.Duration("for", time.Hour, "how long TestSoak goes on")
	soakSeed = flag.Uint64("seed", 0, "of TestSoak's moments; 0: chosen, and printed")
)

const (
	soakBatch = 5000          // records of a batch
	soakChunk = 4 * soakBatch // records before each kill, so that every moment comes at least twice
	soakCheck = 20            // kills between two looks at the table by other engines
)

// TestSoak kills the binary at random moments, and the broker now and then, for
// as long as it is told, while records keep coming; every twenty kills the table
// has each record once.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	shared = open(t)
	l := *shared
	l.T, l.topic = t, "soak"
	l.create(4, nil)
	l.write(fmt.Sprintf("max_records: %d", soakBatch))
	ids, histogram := map[int64]bool{}, map[string]int{}
	begun, next := time.Now(), int64(0)
	for n := 1; time.Since(begun) < *soakFor; n++ {
		maps.Copy(ids, l.produce(next, soakChunk, 1+rnd.IntN(2000)))
		next += soakChunk
		moment, nth := moments[rnd.IntN(len(moments))], 1+rnd.IntN(2)
		d := l.start("--takeover")
		if rnd.IntN(10) == 0 {
			l.kafka.Restart(shared)
			histogram["broker restarted"]++
		}
		if !l.until(d, moment, nth) {
			l.Fatalf("it ended by itself before %q %d:\n%s", moment, nth, tail(d.log.Bytes()))
		}
		_ = d.cmd.Process.Kill()
		<-d.done
		histogram[moment]++
		if n%soakCheck == 0 {
			l.drain()
			l.check(ids)
		}
	}
	l.drain()
	l.check(ids)
	t.Logf("%s, %d records, killed at %v", time.Since(begun).Round(time.Second), next, histogram)
}
