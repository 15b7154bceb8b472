// Package servers starts the real servers of the integration tests and the
// benchmarks: Apache Kafka, an S3 server, the Java reference of the Iceberg REST
// catalog, and PostgreSQL. They come through the ordinary package managers,
// PostgreSQL from the system, the others into a cache folder, and run as
// processes, or with FRAZIL_TEST_DOCKER=1 as containers. They listen on the
// loopback interface, and end with the test. It is built with the tag
// integration only.
package servers
