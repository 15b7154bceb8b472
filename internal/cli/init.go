package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/pipeline"
)

// initFlags are those of init.
type initFlags struct {
	brokers                       []string
	topic, file                   string
	mechanism, username, password string
	tls                           bool
	ca                            string
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init --brokers B --topic T", Short: "Sample a topic and write a spec to read, change and keep", Args: exactly(0, "no arguments"),
		Long: `Reads some of the oldest and some of the newest records of each partition, and
writes a spec with the columns that were seen. Values of several types are kept
as JSON text in the column _unknown. A topic without JSON objects is taken raw.

The password of SASL is read from an environment variable, which the spec names.`,
		Example: `  frazil init --brokers localhost:9092 --topic clicks --file clicks.yaml
  frazil init --brokers kafka:9093 --topic clicks --tls \
    --sasl-mechanism scram-sha-512 --sasl-username me --sasl-password-env KAFKA_PASSWORD`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(f.brokers) == 0 || f.topic == "" {
				return fmt.Errorf("%w: say where the records are: --brokers localhost:9092 --topic clicks", errUsage)
			}
			for _, b := range f.brokers {
				if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
					return fmt.Errorf("%w: --brokers: %q is not host:port", errUsage, b)
				}
			}
			return a.init(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.brokers, "brokers", nil, "host:port, separated by commas")
	flags.StringVar(&f.topic, "topic", "", "the topic")
	flags.StringVar(&f.file, "file", "", "where to write the spec; the standard output if not said")
	flags.StringVar(&f.mechanism, "sasl-mechanism", "", "plain, scram-sha-256 or scram-sha-512")
	flags.StringVar(&f.username, "sasl-username", "", "who logs in")
	flags.StringVar(&f.password, "sasl-password-env", "KAFKA_PASSWORD", "the environment variable that holds the password")
	flags.BoolVar(&f.tls, "tls", false, "encrypt, and check the broker's certificate")
	flags.StringVar(&f.ca, "tls-ca", "", "file with certificates to trust, instead of the system's")
	completes(cmd, "sasl-mechanism", "plain", "scram-sha-256", "scram-sha-512")
	return cmd
}

func (a *app) init(ctx context.Context, f initFlags) error {
	if f.file != "" {
		if _, err := os.Stat(f.file); err == nil {
			return fmt.Errorf("%w: %s exists already; name another file with --file", errUsage, f.file)
		}
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	s, err := takeSample(ctx, o, f.topic)
	if err != nil {
		return err
	}
	text, err := f.draft(s)
	if err != nil {
		return err
	}
	// What is written must run: the checks of validate are made here.
	spec, err := config.Parse("the spec that init wrote", []byte(text), os.LookupEnv)
	if err != nil {
		return err
	}
	p, err := pipeline.New(ctx, spec, pipeline.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	p.Close()
	if f.file == "" {
		_, err = fmt.Fprint(a.out, text)
		return err
	}
	out, err := os.OpenFile(f.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s exists already; name another file with --file", errUsage, f.file)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	_, err = out.WriteString(text)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	fmt.Fprintf(a.out, "%s written from %d records; read it, then:\n  %s preview %s\n  %s run %s\n", f.file, len(s.values)+s.tombstones, called(), f.file, called(), f.file)
	return nil
}

func (f initFlags) options() (kafka.Options, error) {
	o := kafka.Options{Brokers: f.brokers, TLS: kafka.TLS{Enabled: f.tls || f.ca != "", CA: f.ca}}
	if f.mechanism == "" {
		return o, nil
	}
	password, ok := os.LookupEnv(f.password)
	if !ok {
		return o, fmt.Errorf("%w: variable %s is not set; put the password there, or name another one with --sasl-password-env", errUsage, f.password)
	}
	o.SASL = kafka.SASL{Mechanism: f.mechanism, Username: f.username, Password: password}
	return o, nil
}

// login is the part of the spec that says how to log in.
func (f initFlags) login() string {
	var b strings.Builder
	if f.mechanism != "" {
		fmt.Fprintf(&b, "      sasl: {mechanism: %s, username: %s, password: \"${%s}\"}\n", f.mechanism, yamlText(f.username), f.password)
	}
	if f.ca != "" {
		fmt.Fprintf(&b, "      tls: {ca: %s}\n", yamlText(f.ca))
	} else if f.tls {
		b.WriteString("      tls: {}\n")
	}
	return b.String()
}
