// Package registry asks a Confluent-compatible schema registry for the schemas
// that records were written with. It is a tool, not a room.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/singleflight"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
)

// Options say how to reach a registry. They print without secrets.
type Options struct {
	URLs     []string // of one registry: the next one is asked where one does not answer
	Username string
	Password string `json:"-"`
	Token    string `json:"-"` // a bearer token, instead of Username and Password
	TLS      certs.TLS
}

// Schema is one version of a subject.
type Schema struct {
	ID   int32
	Type string // AVRO, PROTOBUF or JSON
	Text string
	// References are the schemas that Text refers to, by the name it uses, with
	// their own ones.
	References map[string]Schema
}

// ErrUnknown means that the registry answered that it has no such schema.
var ErrUnknown = errors.New("the registry has no such schema")

// Latest is the newest version of a subject.
const Latest = -1

// Clock is time, real or simulated.
type Clock interface {
	Now() time.Time
	// Sleep returns early with the context's cause.
	Sleep(ctx context.Context, d time.Duration) error
}

const (
	// requestTimeout bounds one request, and askTimeout all attempts at one
	// question: then the caller says what it waits for, and tries again.
	requestTimeout = 5 * time.Second
	askTimeout     = 15 * time.Second
	attempts       = 4
	pauseFirst     = 100 * time.Millisecond // doubled after each attempt
	// unknownFor is how long an id is not asked for again: long enough that a
	// topic full of such records does not flood the registry, and short enough
	// that a registry which lags is asked once more.
	unknownFor = 10 * time.Second
	// unknownMax bounds the ids that are remembered as unknown: each may be a
	// record's garbage.
	unknownMax = 10_000
	// depthMax and referencesMax bound the references of one schema.
	depthMax      = 32
	referencesMax = 1000
	// versionsMax bounds the versions of one subject, each of which is a question.
	versionsMax = 10_000
)

// Client asks one registry and keeps what it learnt: an id never changes its
// schema, nor does a version of a subject. It may be used by several goroutines.
type Client struct {
	asks  []ask
	clock Clock
	group singleflight.Group

	mu       sync.Mutex
	ids      map[int32]Schema
	unknown  map[string]time.Time // ids and GUIDs, until when
	guids    map[string]int32
	versions map[version]Schema
	listings map[string]listing // by subject
}

// listing is all versions of a subject, until they are asked for again.
type listing struct {
	all   []Schema
	until time.Time
}

// ask is the client of one address.
type ask struct {
	url string
	*sr.Client
}

type version struct {
	subject string
	number  int
}

// New makes a client. Nothing is sent yet. batch.ErrInvalid: a setting is wrong
// or a file cannot be read.
func New(o Options, clock Clock) (*Client, error) {
	if len(o.URLs) == 0 {
		return nil, fmt.Errorf("%w: the schema registry has no url; set url: https://registry.example.com", batch.ErrInvalid)
	}
	config, err := o.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("%w: schema registry: %w", batch.ErrInvalid, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	c := &Client{clock: clock, ids: map[int32]Schema{}, unknown: map[string]time.Time{}, guids: map[string]int32{}, versions: map[version]Schema{}, listings: map[string]listing{}}
	opts := []sr.ClientOpt{
		sr.UserAgent("frazil"), sr.LogLevel(sr.LogLevelNone),
		sr.HTTPClient(&http.Client{Timeout: requestTimeout, Transport: bounded{transport}}),
	}
	switch {
	case o.Token != "":
		opts = append(opts, sr.BearerToken(o.Token))
	case o.Username != "" || o.Password != "":
		opts = append(opts, sr.BasicAuth(o.Username, o.Password))
	}
	for _, address := range o.URLs {
		if err := checkURL(address); err != nil {
			return nil, err
		}
		client, err := sr.NewClient(append(opts[:len(opts):len(opts)], sr.URLs(address))...)
		if err != nil {
			return nil, fmt.Errorf("%w: schema registry %s: %w", batch.ErrInvalid, address, err)
		}
		c.asks = append(c.asks, ask{address, client})
	}
	return c, nil
}

// checkURL returns a batch.ErrInvalid for what is not a registry's address.
func checkURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil: // its text would print a password
		return fmt.Errorf("%w: the schema registry's url is none; write https://registry.example.com", batch.ErrInvalid)
	case u.User != nil:
		return fmt.Errorf("%w: the schema registry's url holds a login; write username and password as keys of their own", batch.ErrInvalid)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%w: the schema registry's url %q is not http(s)://host:port/path", batch.ErrInvalid, address)
	}
	return nil
}

// ByID returns a schema with its references. An error wraps ErrUnknown where the
// registry has none of this id, batch.ErrUnavailable where it does not answer,
// and batch.ErrInvalid where it refuses.
func (c *Client) ByID(ctx context.Context, id int32) (Schema, error) {
	c.mu.Lock()
	s, known := c.ids[id]
	c.mu.Unlock()
	if known {
		return s, nil
	}
	v, err := c.once(strconv.Itoa(int(id)), func() (any, error) { return c.askID(ctx, id) })
	s, _ = v.(Schema)
	return s, err
}

// once asks for an id or a GUID, unless it was unknown just now. Workers that meet a
// new one at the same time ask once.
func (c *Client) once(what string, ask func() (any, error)) (any, error) {
	c.mu.Lock()
	until, unknown := c.unknown[what]
	c.mu.Unlock()
	if unknown && c.clock.Now().Before(until) {
		return nil, fmt.Errorf("schema registry %s: schema %s: %w", c.asks[0].url, what, ErrUnknown)
	}
	v, err, _ := c.group.Do(what, ask)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		delete(c.unknown, what)
	case errors.Is(err, ErrUnknown):
		if len(c.unknown) >= unknownMax {
			clear(c.unknown)
		}
		c.unknown[what] = c.clock.Now().Add(unknownFor)
	}
	return v, err
}

// IDByGUID returns the id of the schema with a GUID, with the errors of ByID. Where
// several contexts of the registry have the schema, it is that of the default one.
func (c *Client) IDByGUID(ctx context.Context, guid string) (int32, error) {
	c.mu.Lock()
	id, known := c.guids[guid]
	c.mu.Unlock()
	if known {
		return id, nil
	}
	v, err := c.once(guid, func() (any, error) { return c.askGUID(ctx, guid) })
	id, _ = v.(int32)
	return id, err
}

// defaultContext is the name of a registry's own context.
const defaultContext = "."

// noSchema is a registry's code for a schema that it does not have.
const noSchema = 40403

func (c *Client) askGUID(ctx context.Context, guid string) (int32, error) {
	all, err := retried(ctx, c, "schema "+guid, func(ctx context.Context, a ask) ([]sr.ContextID, error) {
		all, err := a.SchemaIDsByGUID(ctx, guid)
		var answer *sr.ResponseError
		if errors.As(err, &answer) && answer.ErrorCode == http.StatusNotFound {
			answer.ErrorCode = noSchema // an older registry, which knows no GUIDs
		}
		return all, err
	})
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("schema registry %s: schema %s: %w", c.asks[0].url, guid, ErrUnknown)
	}
	slices.SortFunc(all, func(a, b sr.ContextID) int {
		return cmp.Or(cmp.Compare(len(a.Context), len(b.Context)), cmp.Compare(a.Context, b.Context))
	})
	id := all[0]
	if at := slices.IndexFunc(all, func(a sr.ContextID) bool { return a.Context == defaultContext }); at >= 0 {
		id = all[at]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guids[guid] = int32(id.ID)
	return int32(id.ID), nil
}

func (c *Client) askID(ctx context.Context, id int32) (Schema, error) {
	got, err := retried(ctx, c, "schema "+strconv.Itoa(int(id)), func(ctx context.Context, a ask) (sr.Schema, error) {
		s, err := a.SchemaByID(ctx, int(id))
		return nonEmpty(s, s, err)
	})
	if err != nil {
		return Schema{}, err
	}
	s, err := c.complete(ctx, id, got)
	if err != nil {
		return Schema{}, err
	}
	c.mu.Lock()
	c.ids[id] = s
	c.mu.Unlock()
	return s, nil
}

// Version returns a version of a subject, Latest for the newest one, with its
// references. A subject or version that is not there is ErrUnknown.
func (c *Client) Version(ctx context.Context, subject string, number int) (Schema, error) {
	got, err := c.subject(ctx, subject, number)
	if err != nil {
		return Schema{}, err
	}
	return c.complete(ctx, int32(got.ID), got.Schema)
}

func (c *Client) subject(ctx context.Context, subject string, number int) (sr.SubjectSchema, error) {
	what := fmt.Sprintf("subject %q, version %d", subject, number)
	if number == Latest {
		what = fmt.Sprintf("subject %q", subject)
	}
	return retried(ctx, c, what, func(ctx context.Context, a ask) (sr.SubjectSchema, error) {
		s, err := a.SchemaByVersion(ctx, subject, number)
		return nonEmpty(s, s.Schema, err)
	})
}

// complete adds the references.
func (c *Client) complete(ctx context.Context, id int32, got sr.Schema) (Schema, error) {
	left := referencesMax
	return c.resolve(ctx, id, got, 0, &left)
}

func (c *Client) resolve(ctx context.Context, id int32, got sr.Schema, depth int, left *int) (Schema, error) {
	s := Schema{ID: id, Type: got.Type.String(), Text: got.Schema}
	if depth > depthMax {
		return Schema{}, fmt.Errorf("%w: schema registry %s: references are nested more than %d deep; is there a circle of them?", batch.ErrInvalid, c.asks[0].url, depthMax)
	}
	if *left -= len(got.References); *left < 0 {
		return Schema{}, fmt.Errorf("%w: schema registry %s: a schema has more than %d references", batch.ErrInvalid, c.asks[0].url, referencesMax)
	}
	for _, r := range got.References {
		to, err := c.reference(ctx, version{r.Subject, r.Version}, depth+1, left)
		if err != nil {
			return Schema{}, fmt.Errorf("reference %q: %w", r.Name, err)
		}
		if s.References == nil {
			s.References = map[string]Schema{}
		}
		s.References[r.Name] = to
	}
	return s, nil
}

// reference returns a version that a schema refers to. That the registry does not
// have it, though it has the schema, is no record's fault.
func (c *Client) reference(ctx context.Context, v version, depth int, left *int) (Schema, error) {
	c.mu.Lock()
	s, ok := c.versions[v]
	c.mu.Unlock()
	if ok {
		return s, nil
	}
	got, err := c.subject(ctx, v.subject, v.number)
	if errors.Is(err, ErrUnknown) {
		return Schema{}, fmt.Errorf("%w: %s; register it again", batch.ErrInvalid, err.Error())
	}
	if err != nil {
		return Schema{}, err
	}
	if s, err = c.resolve(ctx, int32(got.ID), got.Schema, depth, left); err != nil {
		return Schema{}, err
	}
	c.mu.Lock()
	c.versions[v] = s
	c.mu.Unlock()
	return s, nil
}

// Versions returns all versions of a subject. Within unknownFor it is the same
// answer, for that a topic full of strange records does not flood the registry.
func (c *Client) Versions(ctx context.Context, subject string) ([]Schema, error) {
	c.mu.Lock()
	known, ok := c.listings[subject]
	c.mu.Unlock()
	if ok && c.clock.Now().Before(known.until) {
		return known.all, nil
	}
	numbers, err := retried(ctx, c, fmt.Sprintf("subject %q", subject), func(ctx context.Context, a ask) ([]int, error) {
		return a.SubjectVersions(ctx, subject)
	})
	if err != nil {
		return nil, err
	}
	if len(numbers) > versionsMax {
		return nil, fmt.Errorf("%w: schema registry %s: subject %q has %d versions, %d are the most that are searched for a fingerprint; use framing: registry", batch.ErrInvalid, c.asks[0].url, subject, len(numbers), versionsMax)
	}
	all := make([]Schema, 0, len(numbers))
	left := referencesMax
	for _, n := range numbers {
		s, err := c.reference(ctx, version{subject, n}, 0, &left)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	c.mu.Lock()
	c.listings[subject] = listing{all, c.clock.Now().Add(unknownFor)}
	c.mu.Unlock()
	return all, nil
}
