//go:build integration

package servers

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Keys of the S3 server.
const (
	S3Key    = "admin"
	S3Secret = "password123"
	Bucket   = "warehouse"
)

const (
	s3Version   = "v1.8.0"
	restVersion = "1.11.0"
	restMain    = "org.apache.iceberg.rest.RESTCatalogServer"
)

// s3Binary is the folder of the S3 server's binary.
func s3Binary(t testing.TB) string {
	t.Helper()
	return once(t, "versitygw-"+s3Version, func(dir string) {
		run(t, dir, []string{"GOBIN=" + dir, "GOFLAGS=", "CGO_ENABLED=0"}, "go", "install", "github.com/versity/versitygw/cmd/versitygw@"+s3Version)
	})
}

// s3Args are those of the S3 server over plain files.
func s3Args(address, folder string) []string {
	return []string{"--port", address, "--access", S3Key, "--secret", S3Secret, "posix", folder}
}

// StartS3 starts a server over plain files and returns its endpoint.
func StartS3(t testing.TB) string {
	t.Helper()
	if inDocker() {
		return s3Contained(t)
	}
	bin, dir, port := s3Binary(t), t.TempDir(), Port(t)
	if err := os.MkdirAll(filepath.Join(dir, "s3", Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, filepath.Join(dir, "s3.log"), nil, filepath.Join(bin, "versitygw"), s3Args(local(port), filepath.Join(dir, "s3"))...)
	wait(t, p, "the S3 server", listens(local(port)))
	return "http://" + local(port)
}

func restJars(t testing.TB, poms string) string {
	t.Helper()
	return jars(t, "iceberg-rest-"+restVersion, filepath.Join(poms, "rest.pom.xml"))
}

// restEnv are the settings of the REST catalog with its database in a folder.
func restEnv(s3, folder string, port int) map[string]string {
	return map[string]string{
		"AWS_REGION": "us-east-1", "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog", "CATALOG_URI": "jdbc:sqlite:" + filepath.Join(folder, "catalog.db"),
		"CATALOG_JDBC_USER": "u", "CATALOG_JDBC_PASSWORD": "p", "CATALOG_WAREHOUSE": "s3://" + Bucket + "/w", "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
		"CATALOG_S3_ENDPOINT": s3, "CATALOG_S3_ACCESS__KEY__ID": S3Key, "CATALOG_S3_SECRET__ACCESS__KEY": S3Secret, "CATALOG_S3_PATH__STYLE__ACCESS": "true",
		"CATALOG_CLIENT_REGION": "us-east-1", "CATALOG_REST_PORT": strconv.Itoa(port),
	}
}

// StartREST starts the Java reference of the REST catalog over an S3 server and
// returns its address.
func StartREST(t testing.TB, poms, s3 string) string {
	t.Helper()
	if inDocker() {
		return restContained(t, poms, s3)
	}
	classes, dir, port := restJars(t, poms), t.TempDir(), Port(t)
	var env []string
	for name, value := range restEnv(s3, dir, port) {
		env = append(env, name+"="+value)
	}
	need(t, "java", "install Java 17, which the REST catalog runs on; or set FRAZIL_TEST_DOCKER=1")
	p := start(t, filepath.Join(dir, "rest.log"), env, "java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes+"/*", restMain)
	wait(t, p, "the REST catalog", listens(local(port)))
	return "http://" + local(port)
}
