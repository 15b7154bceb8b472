// Package deploy checks what is in deploy/: the manifests against the types of
// the Kubernetes API, as strictly as its server does, and everything against the
// program that they run: flags, probes, specs, ports, paths, users.
package deploy
