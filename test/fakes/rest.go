package fakes

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	sqlcat "github.com/apache/iceberg-go/catalog/sql"
	_ "github.com/apache/iceberg-go/io/gocloud/s3" // the s3 scheme
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/utils"
	"github.com/aws/aws-sdk-go-v2/aws"
	_ "modernc.org/sqlite" // the sqlite driver
)

// REST is an Iceberg REST catalog over a file of SQLite.
type REST struct {
	URL      string
	behind   *sqlcat.Catalog
	aws      *aws.Config // one client for all of its requests to S3
	prefix   string
	mu       sync.Mutex
	overload func(http.ResponseWriter, *http.Request) bool
	config   map[string]any
	vend     func() (config map[string]string, credentials []map[string]any)
}

// NewREST starts a catalog whose own access to the warehouse are properties, and
// whose tables are below a prefix of the path, "" for none.
func NewREST(t testing.TB, warehouse, prefix string, properties map[string]string) *REST {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "rest.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	props := iceberg.Properties{"warehouse": warehouse}
	maps.Copy(props, properties)
	behind, err := sqlcat.NewCatalog("rest", db, sqlcat.SQLite, props)
	if err != nil {
		t.Fatal(err)
	}
	r := &REST{behind: behind, prefix: prefix, aws: &aws.Config{Region: "us-east-1", HTTPClient: &http.Client{Transport: &http.Transport{}}}}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.Close()
		_ = db.Close()
	})
	r.URL = server.URL
	return r
}

// Intercept lets meet answer requests itself, by returning true.
func (r *REST) Intercept(meet func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overload = meet
}

// Config sets what the server says of itself: defaults and overrides.
func (r *REST) Config(config map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.config = config
}

// Vend sets what the answer to a load of a table carries besides.
func (r *REST) Vend(vend func() (config map[string]string, credentials []map[string]any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vend = vend
}

// ServeHTTP implements http.Handler.
func (r *REST) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	meet, config := r.overload, r.config
	r.mu.Unlock()
	if meet != nil && meet(w, q) {
		return
	}
	if q.URL.Path == "/v1/config" {
		if config == nil {
			config = map[string]any{"defaults": map[string]string{}, "overrides": map[string]string{}}
		}
		answer(w, config)
		return
	}
	q = q.WithContext(utils.WithAwsConfig(q.Context(), r.aws))
	path, ok := strings.CutPrefix(q.URL.Path, strings.TrimSuffix("/v1/"+r.prefix, "/")+"/namespaces")
	if !ok {
		Refuse(w, http.StatusNotFound, "NotFoundException", "no such path "+q.URL.Path)
		return
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "" && q.Method == http.MethodPost:
		r.createNamespace(w, q)
	case len(parts) == 2 && parts[1] == "tables" && q.Method == http.MethodPost:
		r.createTable(w, q, parts[0])
	case len(parts) == 3 && q.Method == http.MethodGet:
		t, err := r.behind.LoadTable(q.Context(), table.Identifier{parts[0], parts[2]})
		r.answerTable(w, t, err)
	case len(parts) == 3 && q.Method == http.MethodPost:
		r.commit(w, q, table.Identifier{parts[0], parts[2]})
	default:
		Refuse(w, http.StatusNotFound, "NotFoundException", "no such path "+q.URL.Path)
	}
}

// Refuse answers with an error as the REST specification has it.
func Refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": kind, "code": status}})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (r *REST) createNamespace(w http.ResponseWriter, q *http.Request) {
	var body struct{ Namespace []string }
	if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
		Refuse(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	if err := r.behind.CreateNamespace(q.Context(), body.Namespace, nil); err != nil {
		refuse(w, err)
		return
	}
	answer(w, map[string]any{"namespace": body.Namespace})
}

func (r *REST) createTable(w http.ResponseWriter, q *http.Request, namespace string) {
	var body struct {
		Name       string
		Schema     *iceberg.Schema
		Spec       *iceberg.PartitionSpec `json:"partition-spec"`
		Order      *table.SortOrder       `json:"write-order"`
		Properties iceberg.Properties
	}
	if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
		Refuse(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	opts := []catalog.CreateTableOpt{catalog.WithProperties(body.Properties)}
	if body.Spec != nil {
		opts = append(opts, catalog.WithPartitionSpec(body.Spec))
	}
	if body.Order != nil {
		opts = append(opts, catalog.WithSortOrder(*body.Order))
	}
	t, err := r.behind.CreateTable(q.Context(), table.Identifier{namespace, body.Name}, body.Schema, opts...)
	r.answerTable(w, t, err)
}

func (r *REST) commit(w http.ResponseWriter, q *http.Request, ident table.Identifier) {
	var body struct {
		Requirements table.Requirements
		Updates      table.Updates
	}
	if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
		Refuse(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	// A client that gave up has not undone its commit.
	meta, location, err := r.behind.CommitTable(context.WithoutCancel(q.Context()), ident, body.Requirements, body.Updates)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, map[string]any{"metadata-location": location, "metadata": meta})
}

func (r *REST) answerTable(w http.ResponseWriter, t *table.Table, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	out := map[string]any{"metadata-location": t.MetadataLocation(), "metadata": t.Metadata()}
	r.mu.Lock()
	vend := r.vend
	r.mu.Unlock()
	if vend != nil {
		config, credentials := vend()
		out["config"] = config
		if credentials != nil {
			out["storage-credentials"] = credentials
		}
	}
	answer(w, out)
}

func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, catalog.ErrNoSuchTable), errors.Is(err, catalog.ErrNoSuchNamespace):
		Refuse(w, http.StatusNotFound, "NoSuchTableException", err.Error())
	case errors.Is(err, catalog.ErrTableAlreadyExists), errors.Is(err, catalog.ErrNamespaceAlreadyExists):
		Refuse(w, http.StatusConflict, "AlreadyExistsException", err.Error())
	default: // the requirements of a commit do not hold
		Refuse(w, http.StatusConflict, "CommitFailedException", err.Error())
	}
}
