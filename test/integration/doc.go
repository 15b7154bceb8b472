// Package integration runs the binary against real servers, kills it, and reads
// the tables back with other engines. It is built with the tag integration only.
package integration
