// Package config reads a pipeline's spec: YAML with defaults, checked so that a
// mistake is answered with file, line, column, key and what to write instead. It
// knows nothing of the rooms.
package config

// Spec is one pipeline.
type Spec struct {
	Name        string             `yaml:"name"`
	Trigger     Trigger            `yaml:"trigger"`
	Limits      Limits             `yaml:"limits"`
	Checkpoint  string             `yaml:"checkpoint"`
	Memory      Bytes              `yaml:"memory"`
	Catalogs    map[string]Catalog `yaml:"catalogs"`
	Sources     Ordered[Source]    `yaml:"sources"`
	Tables      Ordered[Dimension] `yaml:"tables"`
	Macros      Ordered[string]    `yaml:"macros"` // name(parameters): expression
	Views       Ordered[string]    `yaml:"views"`
	Sinks       Ordered[Sink]      `yaml:"sinks"` // the last one is DeadLetters where they have a table
	DeadLetter  *DeadLetter        `yaml:"dead_letter"`
	Maintenance Maintenance        `yaml:"maintenance"`

	mask Mask
	text text // it was read from
}

// Trigger says when a batch begins.
type Trigger struct {
	Interval     *Duration `yaml:"interval"`
	AvailableNow bool      `yaml:"available_now"`
	Freshness    any       `yaml:"freshness" later:"choosing the interval by itself comes with a later version; use interval"`
}

// Limits bound one batch.
type Limits struct {
	MaxBytes   Bytes    `yaml:"max_bytes"`
	MaxRecords int64    `yaml:"max_records"`
	MinRecords int64    `yaml:"min_records"`
	MinBytes   Bytes    `yaml:"min_bytes"`
	MaxDelay   Duration `yaml:"max_delay"`
}

// Catalog is an Iceberg catalog.
type Catalog struct {
	Type       string            `yaml:"type"`
	URI        string            `yaml:"uri"`
	Warehouse  string            `yaml:"warehouse"`
	Credential string            `yaml:"credential" secret:"true"`
	Token      string            `yaml:"token" secret:"true"`
	Properties map[string]string `yaml:"properties"`
}

// Source is a relation that is streamed.
type Source struct {
	Kafka       *Kafka       `yaml:"kafka"`
	Format      string       `yaml:"format"`
	Options     FormatOption `yaml:"options"`
	Columns     string       `yaml:"columns"`
	Timestamps  string       `yaml:"timestamps"`
	Tombstones  string       `yaml:"tombstones"`
	Metadata    bool         `yaml:"metadata"`
	OnBadRecord string       `yaml:"on_bad_record"`
	// MaxRecordBytes is never nil after Load.
	MaxRecordBytes *Bytes        `yaml:"max_record_bytes"`
	SchemaFile     string        `yaml:"schema_file"`
	Registry       *Registry     `yaml:"registry"`
	Envelope       string        `yaml:"envelope"`
	Key            *Key          `yaml:"key"`
	Expect         Ordered[Rule] `yaml:"expect"`
	Watermark      any           `yaml:"watermark" later:"watermarks come with windows in a later version; leave it out"`
}

// Rule is a condition that each row must fulfil.
type Rule struct {
	SQL    string `yaml:"sql"`
	OnFail string `yaml:"on_fail"`
}

// Key is how the keys of a source's records become columns.
type Key struct {
	Format     string    `yaml:"format"`
	Options    KeyOption `yaml:"options"`
	Columns    string    `yaml:"columns"`
	Timestamps string    `yaml:"timestamps"`
	SchemaFile string    `yaml:"schema_file"`
	Registry   *Registry `yaml:"registry"`
}

// KeyOption are settings of a key's format.
type KeyOption struct {
	UnknownFields string `yaml:"unknown_fields"`
	Framing       string `yaml:"framing"`
	Message       string `yaml:"message"`
}

// Source is a source whose values are decoded as the key is.
func (k Key) Source() Source {
	return Source{
		Format: k.Format, Columns: k.Columns, Timestamps: k.Timestamps, SchemaFile: k.SchemaFile, Registry: k.Registry,
		Options: FormatOption{UnknownFields: k.Options.UnknownFields, Framing: k.Options.Framing, Message: k.Options.Message},
	}
}

// Kafka is where a source's records come from.
type Kafka struct {
	Brokers      Addresses `yaml:"brokers"`
	Topics       []string  `yaml:"topics"`
	TopicPattern string    `yaml:"topic_pattern"`
	Start        Start     `yaml:"start"`
	Isolation    string    `yaml:"isolation"`
	OnDataLoss   string    `yaml:"on_data_loss"`
	Group        *string   `yaml:"group"`
	SASL         *SASL     `yaml:"sasl"`
	TLS          *TLS      `yaml:"tls"`
}

// SASL is how to log in.
type SASL struct {
	Mechanism string `yaml:"mechanism"`
	Username  string `yaml:"username"`
	Password  string `yaml:"password" secret:"true"`
	Token     string `yaml:"token" secret:"true"`
	// For oauthbearer, instead of Token: a file that is read for each login, or a
	// server that gives tokens for client credentials.
	TokenFile    string   `yaml:"token_file"`
	TokenURL     string   `yaml:"token_url"`
	ClientID     string   `yaml:"client_id"`
	ClientSecret string   `yaml:"client_secret" secret:"true"`
	Scopes       []string `yaml:"scopes"`
}

// TLS is how to encrypt.
type TLS struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`
}

// Registry is a schema registry, and the schema in it whose columns a source has.
type Registry struct {
	URL      URLs    `yaml:"url"`
	Subject  string  `yaml:"subject"`
	Version  Version `yaml:"version"`
	Username string  `yaml:"username"`
	Password string  `yaml:"password" secret:"true"`
	Token    string  `yaml:"token" secret:"true"`
	TLS      *TLS    `yaml:"tls"`
}

// FormatOption are settings of a format.
type FormatOption struct {
	UnknownFields string `yaml:"unknown_fields"`
	Encoding      string `yaml:"encoding"`
	Framing       string `yaml:"framing"`
	Message       string `yaml:"message"`
	// Of CSV.
	Delimiter string  `yaml:"delimiter"`
	Quote     *string `yaml:"quote"`
	Null      string  `yaml:"null_string"`
	// Include names more columns of an envelope.
	Include []string `yaml:"include"`
}

// Dimension is a table to join with, pinned to one version for each batch.
type Dimension struct {
	Iceberg  *IcebergRef `yaml:"iceberg"`
	Parquet  string      `yaml:"parquet"` // a file, or s3://bucket/key
	CSV      *CSV        `yaml:"csv"`
	Postgres *Postgres   `yaml:"postgres"`
	Refresh  *Duration   `yaml:"refresh"`
}

// CSV is a file of comma-separated values.
type CSV struct {
	Path      string `yaml:"path"` // or s3://bucket/key
	Header    *bool  `yaml:"header"`
	Delimiter string `yaml:"delimiter"`
	Null      string `yaml:"null_string"`
	Columns   string `yaml:"columns"`
}

// Postgres is a table, or a query, of PostgreSQL.
type Postgres struct {
	URI   string `yaml:"uri" secret:"true"`
	Table string `yaml:"table"`
	Query string `yaml:"query"`
}

// IcebergRef names a table in a catalog.
type IcebergRef struct {
	Catalog string `yaml:"catalog"`
	Table   string `yaml:"table"`
}

// Sink is a SELECT and the table that takes its rows.
type Sink struct {
	SQL     string         `yaml:"sql"`
	Mode    string         `yaml:"mode"`
	Iceberg *Iceberg       `yaml:"iceberg"`
	Late    any            `yaml:"late" later:"late rows come with windows in a later version; leave it out"`
	Key     any            `yaml:"key" later:"mode: update comes with a later version; use mode: append"`
	OrderBy any            `yaml:"order_by" later:"mode: update comes with a later version; use mode: append"`
	Audit   Ordered[Audit] `yaml:"audit"` // rules over the staged batch
	Expect  Ordered[Rule]  `yaml:"expect"`
}

// DeadLetters is the name of the sink that the table of dead letters is.
const DeadLetters = "dead_letters"

// DeadLetter is where rejected records go.
type DeadLetter struct {
	Iceberg     *Iceberg         `yaml:"iceberg"`
	Kafka       *DeadLetterTopic `yaml:"kafka"`
	MaxFraction *float64         `yaml:"max_fraction"`
}

// DeadLetterTopic is a topic for rejected records.
type DeadLetterTopic struct {
	Brokers Addresses `yaml:"brokers"`
	Topic   string    `yaml:"topic"`
	SASL    *SASL     `yaml:"sasl"`
	TLS     *TLS      `yaml:"tls"`
}

// Queries are the names of the sinks that have SQL.
func (s *Spec) Queries() []string {
	names := s.Sinks.Names
	if n := len(names); n > 0 && names[n-1] == DeadLetters {
		return names[:n-1]
	}
	return names
}

// Iceberg is the table of a sink.
type Iceberg struct {
	Catalog     string            `yaml:"catalog"`
	Table       string            `yaml:"table"`
	Create      *bool             `yaml:"create"`
	PartitionBy []string          `yaml:"partition_by"`
	SortBy      []string          `yaml:"sort_by"`
	Branch      string            `yaml:"branch"`
	Evolve      string            `yaml:"evolve"`
	MaxTables   int               `yaml:"max_tables"`
	Properties  map[string]string `yaml:"properties"`
}

// Maintenance is what keeps tables and checkpoint small.
type Maintenance struct {
	KeepSnapshots  int      `yaml:"keep_snapshots"`
	KeepHourly     Duration `yaml:"keep_hourly"`
	KeepBatches    int64    `yaml:"keep_batches"`
	TargetFileSize Bytes    `yaml:"target_file_size"`
}
