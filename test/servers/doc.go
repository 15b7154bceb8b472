// Package servers starts the real servers of the integration tests and the
// benchmarks: Apache Kafka, an S3 server and the Java reference of the Iceberg
// REST catalog. They come through the ordinary package managers into a cache
// folder, listen on the loopback interface, and end with the test. It is built
// with the tag integration only.
package servers
