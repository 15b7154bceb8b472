package driver_test

import "github.com/frazil-io/frazil/internal/batch"

// Things that others do to a pipeline's tables.

// removeTag is a clean-up script that does not know what the tag is for. What
// expired as well cannot be told any more.
func (w *world) removeTag(ti int) {
	t := w.tables[ti]
	if t.tags[0] == 0 || t.ancestry(0) != batch.IsAncestor {
		return
	}
	t.tags[0], t.bare = 0, true
	w.untagged++
	w.note("foreign: t%d loses its tag", ti)
}

// putTagsBack is the operator who does what the pipeline says: the tag belongs
// on the newest stamped snapshot.
func (w *world) putTagsBack() {
	for ti, t := range w.tables {
		if !t.bare {
			continue
		}
		for id := t.head; id != 0; id = t.snaps[id].parent {
			if st := t.snaps[id].stamp; st != nil && st.Name == simPipelines[0] && st.Stream == batch.StreamMain {
				t.tags[0], t.bare = id, false
				w.note("operator: t%d has its tag back on snapshot %d", ti, id)
				break
			}
		}
	}
}

// mayJoin says whether nobody is in the middle of something with sink 1.
func (w *world) mayJoin() bool {
	return (w.cfg.tables > 1 || w.cfg.routed) && len(w.pending) == 0 && len(w.procs) <= w.cfg.daemons()
}

// join takes sink 1 out of the spec, or puts it in again, and runs the new spec
// everywhere.
func (w *world) join() {
	w.out[1] = !w.out[1]
	w.note("operator: sink s1 leaves the spec: %v", w.out[1])
	for _, p := range w.procs {
		p.kill()
	}
}
