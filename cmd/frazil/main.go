// Command frazil runs exact Kafka-to-Iceberg pipelines.
package main

import (
	"os"

	"github.com/frazil-io/frazil/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
