package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"
	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
)

// Classify says what the caller must do about an error of a catalog or a file
// system. It judges by type and code, never by text.
func Classify(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	}
	for _, kind := range []error{batch.ErrInvalid, batch.ErrUnavailable, batch.ErrDataLost, batch.ErrFenced} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	for _, judge := range []func(error) (string, error){judgeCatalog, judgeStore, judgeDatabase, judgeNetwork} {
		if todo, kind := judge(err); kind != nil {
			return fmt.Errorf("%s: %w: %s: %w", doing, kind, todo, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", doing, batch.ErrUnavailable, err)
}

// judgeCatalog judges what a catalog says by Iceberg's own errors.
func judgeCatalog(err error) (todo string, kind error) {
	switch {
	case errors.Is(err, table.ErrCommitFailed):
		return "another commit came first", batch.ErrUnavailable
	case errors.Is(err, catalog.ErrNoSuchTable):
		return "the catalog has no such table", batch.ErrInvalid
	case errors.Is(err, catalog.ErrNoSuchNamespace):
		return "the catalog has no such namespace", batch.ErrInvalid
	case errors.Is(err, rest.ErrUnauthorized), errors.Is(err, rest.ErrOAuthError), errors.Is(err, rest.ErrAuthorizationExpired):
		return "the catalog refused the credentials; check credential and token", batch.ErrInvalid
	case errors.Is(err, rest.ErrForbidden):
		return "the catalog forbids this; grant it to the principal of credential or token", batch.ErrInvalid
	case errors.Is(err, rest.ErrBadRequest):
		return "the catalog refused the request", batch.ErrInvalid
	case errors.Is(err, rest.ErrEndpointNotSupported):
		return "the catalog lacks what is needed; use another one", batch.ErrInvalid
	}
	return "", nil
}

// judgeStore judges errors of local files and of S3 (Amazon S3 API reference,
// "Error responses").
func judgeStore(err error) (todo string, kind error) {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return "this user may not write the warehouse or the catalog's file", batch.ErrInvalid
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return "", nil
	}
	switch api.ErrorCode() {
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired":
		return "the keys of the warehouse have expired", batch.ErrUnavailable // a catalog or a role gives new ones
	case "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden":
		return "the warehouse refused the keys; check s3.access-key-id, s3.secret-access-key and what they may do", batch.ErrInvalid
	case "NoSuchBucket":
		return "the warehouse's bucket does not exist; create it", batch.ErrInvalid
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return "the warehouse's bucket is in another region; set s3.region", batch.ErrInvalid
	}
	return "", nil
}

// Result codes of SQLite (https://sqlite.org/rescode.html).
const (
	sqliteReadOnly = 8
	sqliteCantOpen = 14
	sqliteNotADB   = 26
)

// judgeDatabase judges errors of an SQL catalog's database. Those of PostgreSQL
// have a class and a code (PostgreSQL documentation, appendix A).
func judgeDatabase(err error) (todo string, kind error) {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff {
		case sqliteReadOnly, sqliteCantOpen:
			return "this user may not write the catalog's file", batch.ErrInvalid
		case sqliteNotADB:
			return "the catalog's file is not one of SQLite", batch.ErrInvalid
		}
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", nil
	}
	switch {
	case strings.HasPrefix(pg.Code, "28"):
		return "the catalog's database refused the login; check user and password in uri", batch.ErrInvalid
	case pg.Code == "3D000":
		return "the catalog's database does not exist; create it", batch.ErrInvalid
	case pg.Code == "42501":
		return "this user may not use the catalog's tables; grant it in the database", batch.ErrInvalid
	}
	return "", nil
}

// judgeNetwork judges what stands between: certificates and addresses.
func judgeNetwork(err error) (todo string, kind error) {
	switch certs.FaultOf(err) {
	case certs.OtherName:
		return "the server's certificate is for another name; check uri", batch.ErrInvalid
	case certs.Untrusted:
		return "the server's certificate is not trusted; add its authority to the system's, or name the file in SSL_CERT_FILE", batch.ErrInvalid
	case certs.Plain:
		return "the server does not speak TLS at this address; check uri", batch.ErrInvalid
	case certs.Refused, certs.None: // there is no certificate of the client's own to check
	}
	if _, unknown := errors.AsType[*net.DNSError](err); unknown || errors.Is(err, syscall.ECONNREFUSED) {
		return "the server cannot be reached; is it running, and is the address right?", batch.ErrUnavailable
	}
	return "", nil
}
