// Package bench measures the binary against real servers. It is built with the
// tag integration only, and asserts nothing about time.
package bench
