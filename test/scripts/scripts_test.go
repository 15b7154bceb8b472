// Package scripts runs the command line as a user does: each file of testdata is
// a script with its input files.
package scripts

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"frazil": func() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("BROKER", "")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "binary": binary, "broker": broker, "produce": produce, "registry": registry, "unhex": unhex, "specs": specs, "damage": damage,
		},
	})
}

// exits CODE CMD…: the command ends with this exit code. Its output is for
// stdout and stderr as after exec.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%v ended with exit code %d, want %d", args[1:], got, want)
	}
}

// binary FILE: a file that is no text.
func binary(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("name: \xff\xfe\n"), 0o600))
}

// damage FOLDER: every file below it loses its last byte.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(name, data[:len(data)-1], 0o600)
	}))
}

// broker starts an embedded Kafka and sets BROKER.
func broker(ts *testscript.TestScript, _ bool, args []string) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(2, "clicks"), kfake.SeedTopics(1, "orders", "bare", "lines", "zipped", "events")}
	if len(args) > 0 && args[0] == "sasl" {
		opts = append(opts, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "user", "right-password"))
	}
	c, err := kfake.NewCluster(opts...)
	ts.Check(err)
	ts.Defer(c.Close)
	if len(args) > 1 && args[1] == "refuses" { // as Kafka does; kfake alone would hang up
		c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
			return resp, nil, true
		})
	}
	ts.Setenv("BROKER", c.ListenAddrs()[0])
}

// registry NUMBER TYPE SUBJECT FILE …: starts a schema registry that knows a schema
// in each file by its id, and sets REGISTRY.
func registry(ts *testscript.TestScript, _ bool, args []string) {
	r := srfake.New()
	ts.Defer(r.Close)
	for ; len(args) >= 4; args = args[4:] {
		id, err := strconv.Atoi(args[0])
		ts.Check(err)
		s := sr.Schema{Schema: ts.ReadFile(args[3])}
		ts.Check(s.Type.UnmarshalText([]byte(args[1])))
		r.SeedSchema(args[2], 1, id, s)
	}
	ts.Setenv("REGISTRY", r.URL())
}

// unhex FILE OUT: a file whose bytes are the hexadecimal digits of another.
func unhex(ts *testscript.TestScript, _ bool, args []string) {
	b, err := hex.DecodeString(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// produce [-hex] TOPIC FILE: each line of the file is a record, or with -hex the
// hexadecimal digits of one.
func produce(ts *testscript.TestScript, _ bool, args []string) {
	digits := args[0] == "-hex"
	if digits {
		args = args[1:]
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(ts.Getenv("BROKER")), kgo.DefaultProduceTopic(args[0]))
	ts.Check(err)
	defer client.Close()
	line := []byte{}
	for _, b := range []byte(ts.ReadFile(args[1])) {
		if b != '\n' {
			line = append(line, b)
			continue
		}
		if digits {
			var err error
			line, err = hex.DecodeString(string(line))
			ts.Check(err)
		}
		ts.Check(client.ProduceSync(context.Background(), &kgo.Record{Value: line}).FirstErr())
		line = []byte{}
	}
}

// specs FILE: a good spec and changes to it, each of which must be refused with
// exit code 2 and a message. The file has the spec, then blocks
//
//	=== what is wrong
//	- old text
//	+ new text
//	> message
func specs(ts *testscript.TestScript, _ bool, args []string) {
	good, cases := parseSpecs(ts, ts.ReadFile(args[0]))
	ts.Check(os.WriteFile(ts.MkAbs("good.yaml"), []byte(good), 0o600))
	exits(ts, false, []string{"0", "frazil", "validate", "good.yaml"})
	for _, c := range cases {
		bad := c.apply(ts, good)
		ts.Check(os.WriteFile(ts.MkAbs("bad.yaml"), []byte(bad), 0o600))
		exits(ts, false, []string{"2", "frazil", "validate", "bad.yaml"})
		c.check(ts, ts.ReadFile("stderr"))
	}
	fmt.Fprintf(os.Stderr, "%d bad specs refused\n", len(cases))
}
