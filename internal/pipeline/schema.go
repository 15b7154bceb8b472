package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/registry"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// keyPart, behind a source's name, is the part of it that decodes keys.
const keyPart = ".key"

// part returns a source, or of source.key what is said of its keys.
func (p *Pipeline) part(name string) config.Source {
	source, isKey := strings.CutSuffix(name, keyPart)
	s := p.spec.Sources.By[source]
	if !isKey {
		return s
	}
	key := s.Key.Source()
	key.Envelope = s.Envelope
	return key
}

// findSchema finds the schemas of a source whose format, or whose key's format,
// has one, once.
func (p *Pipeline) findSchema(ctx context.Context, name string) error {
	s := p.part(name)
	if s.Key != nil {
		if err := p.findSchema(ctx, name+keyPart); err != nil {
			return err
		}
	}
	if s.Registry == nil && s.SchemaFile == "" || s.Columns != "" {
		return nil
	}
	ask := func() (decode.Schema, error) { return p.readerSchema(ctx, name) }
	if !p.opts.ReadOnly { // a registry may start beside the pipeline; who only looks wants to know at once
		wait := ask
		ask = func() (decode.Schema, error) { return patient(ctx, wait) }
	}
	schema, err := ask()
	if err != nil {
		return err
	}
	p.schemas[name] = schema
	return nil
}

// readerSchema returns the schema that gives a source its columns, as file or
// registry have it now. batch.ErrUnavailable: the registry does not answer.
func (p *Pipeline) readerSchema(ctx context.Context, source string) (decode.Schema, error) {
	s := p.part(source)
	if s.Registry == nil {
		schema, err := SchemaFile(s.Format, s.SchemaFile)
		if err != nil {
			return decode.Schema{}, fmt.Errorf("%w: source %s: schema_file: %w", batch.ErrInvalid, source, err)
		}
		return schema, nil
	}
	client, err := p.registry(source)
	if err != nil {
		return decode.Schema{}, fmt.Errorf("source %s: %w", source, err)
	}
	found, err := client.Version(ctx, s.Registry.Subject, cmp.Or(int(s.Registry.Version), registry.Latest))
	if errors.Is(err, registry.ErrUnknown) {
		return decode.Schema{}, fmt.Errorf("%w: source %s: %w; correct registry.subject and registry.version", batch.ErrInvalid, source, err)
	}
	if err != nil {
		return decode.Schema{}, fmt.Errorf("source %s: %w", source, err)
	}
	if want := schemaTypes[s.Format]; found.Type != want {
		return decode.Schema{}, fmt.Errorf("%w: source %s: subject %q holds a schema of type %s, and format %s needs %s; correct format or registry.subject",
			batch.ErrInvalid, source, s.Registry.Subject, found.Type, s.Format, want)
	}
	return toDecode(found), nil
}

// SchemaFile reads the schema of a format from a file. A .proto file comes with what it imports,
// other Protobuf schemas are descriptor sets.
func SchemaFile(format, path string) (decode.Schema, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return decode.Schema{}, err
	}
	s := decode.Schema{Type: schemaTypes[format], Text: string(text)}
	if format != "protobuf" {
		return s, nil
	}
	if filepath.Ext(path) != ".proto" {
		s.Type = decode.TypeDescriptors
		return s, nil
	}
	s.References = map[string]decode.Schema{}
	return s, readImports(s.References, s.Text, filepath.Dir(path))
}

// readImports adds the files that a .proto file imports, and those that they do.
// A name is looked for in the folder of the first file and in those above it: one
// of them is the root that names are relative to. What is not found there the
// compiler may have built in, or names as missing.
func readImports(found map[string]decode.Schema, text, folder string) error {
	for _, name := range decode.ProtoImports(text) {
		if _, ok := found[name]; ok || !filepath.IsLocal(name) {
			continue
		}
		for at := folder; ; at = filepath.Dir(at) {
			imported, err := os.ReadFile(filepath.Join(at, filepath.FromSlash(name)))
			if err == nil {
				found[name] = decode.Schema{Type: schemaTypes["protobuf"], Text: string(imported)}
				if err := readImports(found, string(imported), folder); err != nil {
					return err
				}
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if filepath.Dir(at) == at {
				break
			}
		}
	}
	return nil
}

// schemaTypes are the registry's names for formats.
var schemaTypes = map[string]string{"avro": "AVRO", "protobuf": "PROTOBUF", "json": "JSON"}

// registry opens the client of a source's registry, once, so that what it learnt
// serves every decoder.
func (p *Pipeline) registry(source string) (*registry.Client, error) {
	if c := p.registries[source]; c != nil {
		return c, nil
	}
	c, err := registry.New(registryOptions(p.part(source).Registry), driver.WallClock{})
	if err != nil {
		return nil, err
	}
	p.registries[source] = c
	return c, nil
}

func registryOptions(r *config.Registry) registry.Options {
	o := registry.Options{URLs: r.URL, Username: r.Username, Password: r.Password, Token: r.Token}
	if r.TLS != nil {
		o.TLS = certs.TLS(*r.TLS)
	}
	return o
}

// decoder makes a decoder for a source whose records are read with these schemas.
func (p *Pipeline) decoder(name string, readers map[string]decode.Schema) (decode.Decoder, error) {
	d, err := p.partDecoder(name, readers[name], decode.New)
	if err == nil && p.spec.Sources.By[name].Key != nil {
		var key decode.Decoder
		if key, err = p.partDecoder(name+keyPart, readers[name+keyPart], decode.NewKey); err != nil {
			return nil, fmt.Errorf("source %s: key: %w", name, err)
		}
		d, err = decode.WithKey(d, key)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", name, err)
	}
	return d, nil
}

// partDecoder makes a decoder for a source's values, or for its keys.
func (p *Pipeline) partDecoder(name string, reader decode.Schema, open func(string, []arrow.Field, decode.Options) (decode.Decoder, error)) (decode.Decoder, error) {
	s := p.part(name)
	o := decode.Options{
		Reader: reader, Unknown: decode.Unknown(s.Options.UnknownFields), Timestamps: s.Timestamps, Framing: s.Options.Framing,
		Message: s.Options.Message, CSV: decode.CSV{Delimiter: s.Options.Delimiter, Quote: s.Options.Quote, Null: s.Options.Null}, Encoding: s.Options.Encoding,
		Include: s.Options.Include,
	}
	if s.MaxRecordBytes != nil { // not of a key
		o.ValueMax = int(*s.MaxRecordBytes)
	}
	if s.Envelope != "none" {
		o.Envelope = s.Envelope
	}
	if c := p.registries[name]; c != nil {
		o.Schemas = schemas{c, p.readers, name, reader.ID, p.asking}
		o.Known = func() ([]decode.Schema, error) { return versions(p.asking, c, s.Registry.Subject) }
	}
	var fields []arrow.Field
	if s.Columns != "" {
		var err error
		if fields, err = decode.ParseColumns(s.Columns); err != nil {
			return nil, err
		}
	}
	return open(s.Format, fields, o)
}

// schemaTimeout bounds how long a decoder waits for one schema: then the batch is
// repeated. Once the pipeline is to stop, stopTimeout does: the batch may still end
// well where the registry answers, and nobody waits for one that hangs.
const (
	schemaTimeout = 10 * time.Second
	stopTimeout   = time.Second
)

// asking makes the context of a question that a decoder asks.
type asking func() (context.Context, context.CancelFunc)

// schemas are a registry's, for decoders.
type schemas struct {
	*registry.Client
	readers *readers // that hear of each; may be nil
	source  string
	reader  int32 // the schema with which its records are read
	asking
}

// ByID implements decode.Schemas.
func (s schemas) ByID(id int32) (decode.Schema, error) {
	ctx, cancel := s.asking()
	defer cancel()
	found, err := s.Client.ByID(ctx, id)
	if errors.Is(err, registry.ErrUnknown) {
		return decode.Schema{}, decode.ErrUnknownSchema
	}
	if err == nil && s.readers != nil {
		err = s.readers.meet(ctx, writerSchema{s.source, id}, s.reader)
	}
	return toDecode(found), err
}

// IDOf implements decode.Schemas.
func (s schemas) IDOf(guid string) (int32, error) {
	ctx, cancel := s.asking()
	defer cancel()
	id, err := s.Client.IDByGUID(ctx, guid)
	if errors.Is(err, registry.ErrUnknown) {
		return 0, decode.ErrUnknownSchema
	}
	return id, err
}

// versions returns the versions of a subject.
func versions(asking asking, c *registry.Client, subject string) ([]decode.Schema, error) {
	ctx, cancel := asking()
	defer cancel()
	found, err := c.Versions(ctx, subject)
	if errors.Is(err, registry.ErrUnknown) {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	out := make([]decode.Schema, len(found))
	for i, f := range found {
		out[i] = toDecode(f)
	}
	return out, err
}

// within makes contexts that end with ctx, after schemaTimeout, or soon after stop.
func within(ctx, stop context.Context) asking {
	silent := func(d time.Duration) error {
		return fmt.Errorf("%w: the schema registry did not answer within %s", batch.ErrUnavailable, d)
	}
	return func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(ctx, schemaTimeout, silent(schemaTimeout))
		ctx, end := context.WithCancelCause(ctx)
		unbind := context.AfterFunc(stop, func() {
			select {
			case <-time.After(stopTimeout):
				end(silent(stopTimeout))
			case <-ctx.Done():
			}
		})
		return ctx, func() {
			unbind()
			end(context.Canceled)
			cancel()
		}
	}
}

// toDecode gives decoders a schema of the registry. References that meet again, as
// they do in any larger Protobuf schema, are taken once: a few of them could be
// reached on billions of ways.
func toDecode(s registry.Schema) decode.Schema { return toDecodeOnce(s, map[int32]decode.Schema{}) }

func toDecodeOnce(s registry.Schema, known map[int32]decode.Schema) decode.Schema {
	if out, ok := known[s.ID]; ok {
		return out
	}
	out := decode.Schema{ID: s.ID, Type: s.Type, Text: s.Text}
	for name, r := range s.References {
		if out.References == nil {
			out.References = map[string]decode.Schema{}
		}
		out.References[name] = toDecodeOnce(r, known)
	}
	if s.ID != 0 {
		known[s.ID] = out
	}
	return out
}

// sinkHash is the spec's hash of a sink, and of the schemas in files that its rows
// depend on: a file that was changed is a changed spec. What a registry says is in
// the plan instead.
func (p *Pipeline) sinkHash(name string) string {
	h := sha256.New()
	files := false
	for _, source := range p.spec.Sources.Names {
		for _, part := range []string{source, source + keyPart} {
			if s, ok := p.schemas[part]; ok && s.ID == 0 {
				files = true
				fmt.Fprintf(h, "%s %d %s\n", part, len(s.Text), s.Text)
				for _, name := range slices.Sorted(maps.Keys(s.References)) { // what it imports
					fmt.Fprintf(h, "%q %d %s\n", name, len(s.References[name].Text), s.References[name].Text)
				}
			}
		}
	}
	if !files {
		return p.spec.SinkHash(name)
	}
	fmt.Fprint(h, p.spec.SinkHash(name))
	return hex.EncodeToString(h.Sum(nil))
}
