// Package etl holds the example that `frazil demo etl` runs.
package etl

import _ "embed"

// Spec is pipeline.yaml.
//
//go:embed pipeline.yaml
var Spec []byte
