// Package servers starts the real servers of the integration tests and the
// benchmarks; it is built with the tag integration only.
package servers
