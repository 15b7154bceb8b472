package batch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StreamMain is the stream of a pipeline's ordinary batches.
const StreamMain = "main"

// StreamReplay is the stream of the batches that run dead letters again.
const StreamReplay = "dead-letter-replay"

// Stamp is what the summary of each snapshot that Frazil commits says of it,
// under keys that begin with `frazil.`. It covers everything since the stamp
// before: batches First..Last, offsets [Start, End). docs/formats.md lists the
// keys.
type Stamp struct {
	UUID          string // of the pipeline
	Name          string
	Incarnation   int64
	IncarnationID string
	Stream        string
	// Kind is empty for a batch; else the kind of the incarnation that this
	// snapshot anchors.
	Kind  Kind
	Plan  string // Plan.Hash; for an anchor the incarnation's hash
	First ID
	Last  ID // First-1 for an anchor
	Start Offsets
	End   Offsets
	Time  time.Time // the plan's
	// State is the executor's reference to the state after this stamp: opaque
	// here, empty without state.
	State    string
	Attempt  string
	Counts   Counts // since the stamp before
	Total    Counts // since the pipeline began
	Previous string // Hash of the stamp before; empty for the first one
	// Route is nil but for a table that its sink feeds beside others.
	Route *Route
}

const (
	keyVersion     = "frazil.version"
	keyUUID        = "frazil.pipeline-uuid"
	keyName        = "frazil.pipeline-name"
	keyIncarnation = "frazil.incarnation"
	keyIncID       = "frazil.incarnation-id"
	keyStream      = "frazil.stream"
	keyKind        = "frazil.anchor"
	keyPlan        = "frazil.plan-hash"
	keyFirst       = "frazil.batch-first"
	keyLast        = "frazil.batch-last"
	keyStart       = "frazil.offsets-start"
	keyEnd         = "frazil.offsets-end"
	keyTime        = "frazil.batch-time"
	keyState       = "frazil.state"
	keyAttempt     = "frazil.attempt"
	keyCounts      = "frazil.counts"
	keyTotal       = "frazil.counts-total"
	keyPrevious    = "frazil.previous-stamp"
	keyRoute       = "frazil.route"
)

// stampVersion is the version of the stamp's keys that this code writes.
const stampVersion = "1"

// Tag returns the name of the ref that follows the pipeline's stamps.
func Tag(name, stream string) string {
	if stream == StreamMain {
		return "frazil-" + name
	}
	return "frazil-" + name + "." + stream
}

// AuditBranch returns the name of the branch where a batch waits for its audit. A
// dot cannot occur in the name of a pipeline.
func AuditBranch(tag string) string { return tag + ".audit" }

// Properties returns the stamp as the summary's properties.
func (s *Stamp) Properties() map[string]string {
	p := map[string]string{
		keyVersion: stampVersion, keyUUID: s.UUID, keyName: s.Name,
		keyIncarnation: strconv.FormatInt(s.Incarnation, 10), keyIncID: s.IncarnationID,
		keyStream: s.Stream, keyPlan: s.Plan,
		keyFirst: strconv.FormatInt(int64(s.First), 10), keyLast: strconv.FormatInt(int64(s.Last), 10),
		keyStart: text(s.Start), keyEnd: text(s.End),
		keyTime:    s.Time.UTC().Format(time.RFC3339Nano),
		keyAttempt: s.Attempt, keyCounts: text(s.Counts), keyTotal: text(s.Total),
	}
	for k, v := range map[string]string{keyKind: string(s.Kind), keyState: s.State, keyPrevious: s.Previous} {
		if v != "" {
			p[k] = v
		}
	}
	if s.Route != nil {
		p[keyRoute] = text(s.Route)
	}
	return p
}

// ParseStamp reads a snapshot's summary. It returns nil without an error where
// the snapshot carries no stamp, and ErrInvalid where it carries one that this
// version cannot read.
func ParseStamp(properties map[string]string) (*Stamp, error) {
	version, ok := properties[keyVersion]
	if !ok {
		return nil, nil
	}
	if version != stampVersion {
		return nil, fmt.Errorf("%w: the snapshot's stamp has version %q, this frazil reads %q: run a newer frazil", ErrInvalid, version, stampVersion)
	}
	r := reader{properties: properties}
	s := &Stamp{
		UUID: r.text(keyUUID), Name: r.text(keyName),
		Incarnation: r.number(keyIncarnation), IncarnationID: r.text(keyIncID),
		Stream: r.text(keyStream), Kind: Kind(properties[keyKind]), Plan: r.text(keyPlan),
		First: ID(r.number(keyFirst)), Last: ID(r.number(keyLast)),
		Time: r.time(keyTime), State: properties[keyState], Attempt: properties[keyAttempt],
		Previous: properties[keyPrevious],
	}
	r.json(keyStart, &s.Start)
	r.json(keyEnd, &s.End)
	r.json(keyCounts, &s.Counts)
	r.json(keyTotal, &s.Total)
	if _, ok := properties[keyRoute]; ok {
		r.json(keyRoute, &s.Route)
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: the snapshot's stamp: %w", ErrInvalid, r.err)
	}
	return s, nil
}

// Hash identifies the stamp: the SHA-256 of its sorted properties, in
// hexadecimal.
func (s *Stamp) Hash() string {
	if s == nil {
		return ""
	}
	p := s.Properties()
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(h, "%s=%d:%s\n", k, len(p[k]), p[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Of says whether the stamp belongs to incarnation i and to this stream.
func (s *Stamp) Of(i Incarnation, stream string) bool {
	return s.UUID == i.UUID && s.Incarnation == i.Number && s.IncarnationID == i.ID && s.Stream == stream
}

func (s *Stamp) String() string {
	if s == nil {
		return "no stamp"
	}
	b := &strings.Builder{}
	fmt.Fprintf(b, "pipeline %s (%s) incarnation %d-%s batches %d..%d", s.Name, s.UUID, s.Incarnation, s.IncarnationID, s.First, s.Last)
	if s.Kind != "" {
		fmt.Fprintf(b, " anchor of a %s", s.Kind)
	}
	fmt.Fprintf(b, " offsets %s", text(s.End))
	return b.String()
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("batch: a noun without JSON: " + err.Error())
	}
	return string(data)
}

// reader takes values out of a summary and keeps the first error.
type reader struct {
	properties map[string]string
	err        error
}

func (r *reader) fail(key string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", key, err)
	}
}

func (r *reader) text(key string) string {
	v, ok := r.properties[key]
	if !ok {
		r.fail(key, errors.New("missing"))
	}
	return v
}

func (r *reader) number(key string) int64 {
	n, err := strconv.ParseInt(r.text(key), 10, 64)
	if err != nil {
		r.fail(key, err)
	}
	return n
}

func (r *reader) time(key string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.text(key))
	if err != nil {
		r.fail(key, err)
	}
	return t
}

func (r *reader) json(key string, to any) {
	if err := json.Unmarshal([]byte(r.text(key)), to); err != nil {
		r.fail(key, err)
	}
}
