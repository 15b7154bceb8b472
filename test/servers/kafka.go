//go:build integration

package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const kafkaVersion = "4.3.1"

// Kafka is one broker.
type Kafka struct {
	address string
	server  server
	begin   func(t testing.TB) server // on the data that is there
}

// clusterID is any 16 bytes; each broker has its own data.
const clusterID = "ZnJhemlsLXRlc3QtMDAwMQ"

const log4j = `rootLogger.level=warn
rootLogger.appenderRef.s.ref=s
appender.s.type=Console
appender.s.name=s
appender.s.layout.type=PatternLayout
appender.s.layout.pattern=%d %p %c{1} %m%n
`

// listeners are where a broker listens, and what it tells clients. It talks to
// itself, when it ends a transaction, on a listener of its own: in a container it
// cannot reach the address that clients have.
type listeners struct {
	bind, address            string
	clients, own, controller int
}

// properties of a broker with its data in a folder.
func properties(l listeners, data string) string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[4]d
listeners=PLAINTEXT://%[1]s:%[2]d,OWN://127.0.0.1:%[3]d,CONTROLLER://127.0.0.1:%[4]d
advertised.listeners=PLAINTEXT://%[5]s,OWN://127.0.0.1:%[3]d
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OWN:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=OWN
log.dirs=%[6]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=2000
`, l.bind, l.clients, l.own, l.controller, l.address, data)
}

// StartKafka starts Apache Kafka. poms is the folder of the POM files.
func StartKafka(t testing.TB, poms string) *Kafka {
	t.Helper()
	k := &Kafka{}
	if inDocker() {
		k.contained(t, poms)
	} else {
		k.process(t, poms, KafkaOptions{})
	}
	k.up(t)
	return k
}

func kafkaJars(t testing.TB, poms string) string {
	t.Helper()
	return jars(t, "kafka-"+kafkaVersion, filepath.Join(poms, "kafka.pom.xml"))
}

// KafkaOptions add to a broker that takes anybody.
type KafkaOptions struct {
	Listeners  map[string]int // by name; the port of each
	Properties string         // lines of server.properties
	Scram      []string       // users, as the storage tool's --add-scram takes them
}

// StartKafkaWith starts Apache Kafka with more listeners, always as a process of
// this machine: files of certificates lie here.
func StartKafkaWith(t testing.TB, poms string, o KafkaOptions) *Kafka {
	t.Helper()
	k := &Kafka{}
	k.process(t, poms, o)
	k.up(t)
	return k
}

// add puts the listeners into a broker's properties.
func (o KafkaOptions) add(properties string) string {
	for name, port := range o.Listeners {
		more := fmt.Sprintf(",%s://127.0.0.1:%d\n", name, port)
		for _, key := range []string{"\nlisteners=", "\nadvertised.listeners="} {
			before, after, _ := strings.Cut(properties, key)
			line, rest, _ := strings.Cut(after, "\n")
			properties = before + key + line + more + rest
		}
	}
	return properties + o.Properties
}

// process makes the broker a process of this machine.
func (k *Kafka) process(t testing.TB, poms string, o KafkaOptions) {
	t.Helper()
	classes, dir, port := kafkaJars(t, poms), t.TempDir(), Port(t)
	k.address = local(port)
	settings := filepath.Join(dir, "server.properties")
	for path, text := range map[string]string{
		settings:                                o.add(properties(listeners{"127.0.0.1", k.address, port, Port(t), Port(t)}, filepath.Join(dir, "data"))),
		filepath.Join(dir, "log4j2.properties"): log4j,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	java := func(main string, args ...string) []string {
		return append([]string{"-Xms512m", "-Xmx1g", "-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"), "-cp", classes + "/*", main}, args...)
	}
	need(t, "java", "install Java 17, which Kafka runs on; or set FRAZIL_TEST_DOCKER=1")
	format := []string{"format", "-t", clusterID, "-c", settings}
	for _, user := range o.Scram {
		format = append(format, "--add-scram", user)
	}
	run(t, dir, nil, "java", java("kafka.tools.StorageTool", format...)...)
	k.begin = func(t testing.TB) server {
		t.Helper()
		return start(t, filepath.Join(dir, "kafka.log"), nil, "java", java("kafka.Kafka", settings)...)
	}
}

// up starts the broker and waits until it answers.
func (k *Kafka) up(t testing.TB) {
	t.Helper()
	k.server = k.begin(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(k.address), kgo.RetryTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wait(t, k.server, "Kafka", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return client.Ping(ctx)
	})
}

// Restart kills the broker and starts it on the same data.
func (k *Kafka) Restart(t testing.TB) {
	t.Helper()
	k.server.kill(t)
	k.up(t)
}

// Addr is the broker's address.
func (k *Kafka) Addr() string { return k.address }
