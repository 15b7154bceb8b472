package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// compose has the keys that deploy/compose.yaml uses; another one is an error, so
// that a misspelt key is.
type compose struct {
	Name     string             `json:"name"`
	Services map[string]service `json:"services"`
}

type service struct {
	Image string `json:"image"`
	Build *struct {
		Context    string            `json:"context"`
		Dockerfile string            `json:"dockerfile"`
		Args       map[string]string `json:"args"`
	} `json:"build"`
	DependsOn map[string]struct {
		Condition string `json:"condition"`
	} `json:"depends_on"`
	Entrypoint  []string          `json:"entrypoint"`
	Command     []string          `json:"command"`
	Environment map[string]string `json:"environment"`
	Volumes     []string          `json:"volumes"`
	Ports       []string          `json:"ports"`
	Health      *struct {
		Test     []string `json:"test"`
		Interval string   `json:"interval"`
		Timeout  string   `json:"timeout"`
		Retries  int      `json:"retries"`
	} `json:"healthcheck"`
	ReadOnly    bool     `json:"read_only"`
	CapDrop     []string `json:"cap_drop"`
	SecurityOpt []string `json:"security_opt"`
	StopGrace   string   `json:"stop_grace_period"`
	Restart     string   `json:"restart"`
}

const composeFile = root + "/deploy/compose.yaml"

func composed(t *testing.T) compose {
	t.Helper()
	data, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kafka", "s3", "rest", "frazil"} {
		if _, ok := c.Services[name]; !ok {
			t.Fatalf("no service %s", name)
		}
	}
	return c
}

// TestComposeOrder: each image is an argument, and nobody waits for health that is
// not looked at.
func TestComposeOrder(t *testing.T) {
	c := composed(t)
	argument := regexp.MustCompile(`^\$\{[A-Z0-9]+_IMAGE:-[^}]+\}$`)
	for name, s := range c.Services {
		if !argument.MatchString(s.Image) {
			t.Errorf("%s: image %q is not an argument with a default", name, s.Image)
		}
		for other, d := range s.DependsOn {
			o, ok := c.Services[other]
			switch {
			case !ok:
				t.Errorf("%s waits for %s, which is not there", name, other)
			case d.Condition == "service_healthy" && o.Health == nil:
				t.Errorf("%s waits for the health of %s, which is not looked at", name, other)
			case d.Condition == "service_completed_successfully" && (o.Health != nil || o.Restart != ""):
				t.Errorf("%s waits for the end of %s, which goes on", name, other)
			case d.Condition != "service_healthy" && d.Condition != "service_completed_successfully":
				t.Errorf("%s waits for %q of %s", name, d.Condition, other)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to the network", name, p)
			}
		}
	}
	args := dockerfile(t).words["ARG"]
	for name, value := range c.Services["frazil"].Build.Args {
		found := false
		for _, a := range args {
			own, standard, _ := strings.Cut(a, "=")
			found = found || own == name && value == "${"+name+":-"+standard+"}"
		}
		if !found {
			t.Errorf("build argument %s: %s is not that of the Dockerfile: %q", name, value, args)
		}
	}
}

// TestComposePipeline: the program takes the service's arguments, and the spec
// that is mounted where they say.
func TestComposePipeline(t *testing.T) {
	s := composed(t).Services["frazil"]
	takes(t, s.Command)
	if !s.ReadOnly {
		t.Error("the root is not read-only")
	}
	grace, err := time.ParseDuration(flag(t, s.Command, "--grace"))
	if err != nil {
		t.Fatal(err)
	}
	if stop, err := time.ParseDuration(s.StopGrace); err != nil || stop < grace+10*time.Second {
		t.Errorf("stop_grace_period %s does not leave ten seconds after --grace %s", s.StopGrace, grace)
	}
	port := flag(t, s.Command, "--listen")
	if probe := strings.Join(s.Health.Test, " "); !strings.Contains(probe, "/127.0.0.1/"+strings.TrimPrefix(port, ":")+" ") || !strings.Contains(probe, " /readyz ") {
		t.Errorf("the health check %q does not ask /readyz at %s", probe, port)
	}
	for name, value := range s.Environment {
		t.Setenv(name, value)
	}
	for _, v := range s.Volumes {
		from, to, _ := strings.Cut(v, ":")
		if to != s.Command[1]+":ro" {
			t.Errorf("%s is mounted, and the program reads %s", v, s.Command[1])
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(composeFile), from))
		if err != nil {
			t.Fatal(err)
		}
		spec := valid(t, text)
		kafka := spec.Sources.By["clicks"].Kafka
		if want := composed(t).Services["kafka"].Environment["KAFKA_ADVERTISED_LISTENERS"]; !strings.Contains(want, "//"+kafka.Brokers[0]+",") {
			t.Errorf("the spec asks %s, Kafka is at %s", kafka.Brokers[0], want)
		}
		if made := flag(t, composed(t).Services["topic"].Command, "--topic"); kafka.Topics[0] != made {
			t.Errorf("the spec reads %s, made is %s", kafka.Topics[0], made)
		}
	}
}
