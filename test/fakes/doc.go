// Package fakes are servers in the test's own process, with a hand on the wire:
// an object store that knows which keys are good, and an Iceberg REST catalog
// that may want a login and vend keys. They show what a client sends and how it
// takes an answer; what real servers do is for test/integration.
package fakes
