//go:build integration

package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
)

// inDocker says whether the servers are to run as containers.
func inDocker() bool {
	v := os.Getenv("FRAZIL_TEST_DOCKER")
	return v != "" && v != "0"
}

// image is what a container runs.
type image struct {
	what     string // for people
	public   string // its name
	variable string // of the environment, for another name
	// Where the public image cannot be had: the folder that has its files, and where they go on top of a base image.
	files  func() string
	folder string
}

// baseImage has a shell and Java 17; the images that are built here are made of
// it. FRAZIL_TEST_BASE_IMAGE names another one.
const baseImage = "eclipse-temurin:17-jre"

// pullMax is how long one image may take to come.
const pullMax = 10 * time.Minute

// engine is the Docker that answers.
type engine struct {
	*testcontainers.DockerProvider
}

func docker(t testing.TB) engine {
	t.Helper()
	p, err := testcontainers.NewDockerProvider()
	if err == nil {
		err = p.Health(t.Context())
	}
	if err != nil {
		t.Fatalf("FRAZIL_TEST_DOCKER=1, but no Docker answers: %v; start it, or unset FRAZIL_TEST_DOCKER: then Java 17 and Maven are needed", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return engine{p}
}

// has an image after this, or says why not.
func (e engine) has(t testing.TB, name string) error {
	t.Helper()
	if _, err := e.Client().ImageInspect(t.Context(), name); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), pullMax)
	defer cancel()
	if err := e.PullImage(ctx, name); err != nil {
		return fmt.Errorf("image %s is not here and cannot be pulled: %w", name, err)
	}
	return nil
}

// get returns an image that is here: the one that the environment names, the
// public one, or one that is built from the jars.
func (e engine) get(t testing.TB, i image) string {
	t.Helper()
	if name := os.Getenv(i.variable); name != "" {
		if err := e.has(t, name); err != nil {
			t.Fatalf("%s: %v; %s names it", i.what, err, i.variable)
		}
		return name
	}
	noPublic := e.has(t, i.public)
	if noPublic == nil {
		return i.public
	}
	built := "frazil-test/" + filepath.Base(i.public)
	if _, err := e.Client().ImageInspect(t.Context(), built); err == nil {
		return built
	}
	base := os.Getenv("FRAZIL_TEST_BASE_IMAGE")
	if base == "" {
		base = baseImage
	}
	if err := e.has(t, base); err != nil {
		t.Fatalf("%s cannot be started in Docker: %v", i.what, errors.Join(noPublic, err,
			fmt.Errorf("set %s to an image of it, or FRAZIL_TEST_BASE_IMAGE to one with Java 17 and a shell; or unset FRAZIL_TEST_DOCKER: then Java 17 and Maven are needed", i.variable)))
	}
	t.Logf("%v; building %s from %s", noPublic, built, base)
	e.build(t, built, base, i)
	return built
}

// build puts files on top of a base image.
func (e engine) build(t testing.TB, name, base string, i image) {
	t.Helper()
	files := i.files()
	const dockerfile = "Dockerfile"
	text := fmt.Sprintf("FROM %s\nCOPY . %[2]s/\nENV PATH=%[2]s:$PATH\n", base, i.folder)
	if err := os.WriteFile(filepath.Join(files, dockerfile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	repo, tag, _ := strings.Cut(name, ":")
	var log strings.Builder
	_, err := e.BuildImage(t.Context(), &testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{
		Context: files, Dockerfile: dockerfile, Repo: repo, Tag: tag, KeepImage: true, BuildLogWriter: &log,
	}})
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, tail(log.String()))
	}
}

// contained is a server in a container.
type contained struct {
	*testcontainers.DockerContainer
}

// hostAlias is the name of this machine inside of the containers.
const hostAlias = "host.docker.internal"

// inside returns the address of a server of this machine as containers see it.
func inside(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = hostAlias + ":" + u.Port()
	return u.String()
}

// run starts a shell script in a container whose port is a port of this machine.
// The port is chosen before, because a broker tells its clients where it is.
func (e engine) run(t testing.TB, i image, port, hostPort int, env map[string]string, files map[string]string, script string) contained {
	t.Helper()
	exposed := network.MustParsePort(fmt.Sprintf("%d/tcp", port))
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithEntrypoint("/bin/sh", "-c"),
		testcontainers.WithCmd(script),
		testcontainers.WithEnv(env),
		testcontainers.WithExposedPorts(exposed.String()),
		testcontainers.WithHostConfigModifier(func(c *container.HostConfig) {
			c.PortBindings = network.PortMap{exposed: {{HostIP: netip.IPv4Unspecified(), HostPort: strconv.Itoa(hostPort)}}}
			c.ExtraHosts = append(c.ExtraHosts, hostAlias+":host-gateway")
		}),
	}
	for path, text := range files {
		options = append(options, testcontainers.WithFiles(testcontainers.ContainerFile{Reader: strings.NewReader(text), ContainerFilePath: path, FileMode: 0o644}))
	}
	c, err := testcontainers.Run(t.Context(), e.get(t, i), options...)
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatalf("start %s in Docker: %v; where the reaper's image cannot be pulled, set TESTCONTAINERS_RYUK_DISABLED=true", i.what, err)
	}
	return contained{c}
}

// host is where the ports of the containers are.
func (e engine) host(t testing.TB) string {
	t.Helper()
	host, err := e.DaemonHost(t.Context())
	if err != nil {
		t.Fatalf("where are the containers' ports? %v", err)
	}
	return host
}

func (c contained) kill(t testing.TB) {
	t.Helper()
	at := time.Duration(0)
	if err := c.Stop(t.Context(), &at); err != nil {
		t.Fatalf("kill a container: %v", err)
	}
}

func (c contained) log() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := c.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	return tail(string(data))
}

// Ports inside of the containers.
const (
	kafkaPort      = 9092
	controllerPort = 9093
	ownPort        = 9094
	s3Port         = 7070
	restPort       = 8181
)

// contained makes the broker a container.
func (k *Kafka) contained(t testing.TB, poms string) {
	t.Helper()
	e, port := docker(t), Port(t)
	k.address = fmt.Sprintf("%s:%d", e.host(t), port)
	i := image{
		what: "Kafka", public: "apache/kafka:" + kafkaVersion, variable: "FRAZIL_TEST_KAFKA_IMAGE", folder: "/opt/kafka/libs",
		files: func() string { return kafkaJars(t, poms) },
	}
	const java = "java -Xms512m -Xmx1g -Dlog4j2.configurationFile=/tmp/log4j2.properties -cp '/opt/kafka/libs/*' "
	script := java + "kafka.tools.StorageTool format --ignore-formatted -t " + clusterID + " -c /tmp/server.properties && exec " + java + "kafka.Kafka /tmp/server.properties"
	files := map[string]string{
		"/tmp/server.properties": properties(listeners{"0.0.0.0", k.address, kafkaPort, ownPort, controllerPort}, "/tmp/kafka-data"), "/tmp/log4j2.properties": log4j,
	}
	var c *contained
	k.begin = func(t testing.TB) server {
		t.Helper()
		if c == nil {
			started := e.run(t, i, kafkaPort, port, nil, files, script)
			c = &started
		} else if err := c.Start(t.Context()); err != nil {
			t.Fatalf("start Kafka again: %v", err)
		}
		return *c
	}
}

func s3Contained(t testing.TB) string {
	t.Helper()
	e, port := docker(t), Port(t)
	i := image{
		what: "the S3 server", public: "versity/versitygw:" + s3Version, variable: "FRAZIL_TEST_S3_IMAGE", folder: "/usr/local/bin",
		files: func() string { return s3Binary(t) },
	}
	script := fmt.Sprintf("mkdir -p /tmp/s3/%s && exec versitygw %s", Bucket, strings.Join(s3Args(fmt.Sprintf(":%d", s3Port), "/tmp/s3"), " "))
	c := e.run(t, i, s3Port, port, nil, nil, script)
	endpoint := fmt.Sprintf("http://%s:%d", e.host(t), port)
	wait(t, c, "the S3 server", speaks(endpoint))
	return endpoint
}

func restContained(t testing.TB, poms, s3 string) string {
	t.Helper()
	e, port := docker(t), Port(t)
	i := image{
		what: "the REST catalog", public: "apache/iceberg-rest-fixture:" + restVersion, variable: "FRAZIL_TEST_REST_IMAGE", folder: "/usr/lib/iceberg-rest",
		files: func() string { return restJars(t, poms) },
	}
	c := e.run(t, i, restPort, port, restEnv(inside(t, s3), "/tmp", restPort), nil,
		"exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/usr/lib/iceberg-rest/*' "+restMain)
	address := fmt.Sprintf("http://%s:%d", e.host(t), port)
	wait(t, c, "the REST catalog", speaks(address+"/v1/config"))
	return address
}
