package deploy

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/frazil-io/frazil/internal/server"
)

// root is the source tree's.
const root = "../.."

// strictly decodes a manifest as an API server does that is asked for strict
// validation: an unknown, misspelt or repeated field is an error.
func strictly(manifest []byte) (runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	s := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	o, _, err := s.Decode(manifest, nil, nil)
	return o, err
}

// cluster is what the manifests make, one of each.
type cluster struct {
	deployment *appsv1.Deployment
	config     *corev1.ConfigMap
	secret     *corev1.Secret
	claim      *corev1.PersistentVolumeClaim
	service    *corev1.Service
}

func manifests(t *testing.T) cluster {
	t.Helper()
	files, err := filepath.Glob(root + "/deploy/kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c cluster
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, manifest := range bytes.Split(data, []byte("\n---\n")) {
			o, err := strictly(manifest)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			switch o := o.(type) {
			case *appsv1.Deployment:
				c.deployment = o
			case *corev1.ConfigMap:
				c.config = o
			case *corev1.Secret:
				c.secret = o
			case *corev1.PersistentVolumeClaim:
				c.claim = o
			case *corev1.Service:
				c.service = o
			default:
				t.Fatalf("%s: a %T is not looked at: teach this test", file, o)
			}
		}
	}
	if c.deployment == nil || c.config == nil || c.secret == nil || c.claim == nil || c.service == nil {
		t.Fatalf("a Deployment, ConfigMap, Secret, PersistentVolumeClaim or Service is missing among %v", files)
	}
	if n := len(c.deployment.Spec.Template.Spec.Containers); n != 1 {
		t.Fatalf("%d containers", n)
	}
	return c
}

func (c cluster) pod() corev1.PodSpec         { return c.deployment.Spec.Template.Spec }
func (c cluster) container() corev1.Container { return c.pod().Containers[0] }

// TestStrict: the decoder refuses what an API server refuses.
func TestStrict(t *testing.T) {
	const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: c}\n"
	if _, err := strictly([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"unknown field": good + "dato: {}\n", "another case": good + "Immutable: true\n", "twice": good + "data: {}\n",
		"wrong type": strings.Replace(good, "b: c", "b: 1", 1), "unknown kind": strings.Replace(good, "ConfigMap", "ConfigMop", 1),
		"nested": strings.Replace(good, "name: a", "name: a, lable: {}", 1),
	} {
		if _, err := strictly([]byte(bad)); err == nil {
			t.Errorf("%s was accepted:\n%s", name, bad)
		}
	}
}

// TestReferences: what one manifest names, another one has.
func TestReferences(t *testing.T) {
	c := manifests(t)
	own := labels.Set(c.deployment.Spec.Template.Labels)
	for what, selector := range map[string]map[string]string{"Deployment": c.deployment.Spec.Selector.MatchLabels, "Service": c.service.Spec.Selector} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(own) {
			t.Errorf("the %s selects %v, the pod has %v", what, selector, own)
		}
	}
	volumes := map[string]corev1.Volume{}
	for _, v := range c.pod().Volumes {
		volumes[v.Name] = v
		switch {
		case v.ConfigMap != nil && v.ConfigMap.Name != c.config.Name:
			t.Errorf("volume %s is of ConfigMap %s, which is not there", v.Name, v.ConfigMap.Name)
		case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName != c.claim.Name:
			t.Errorf("volume %s is of claim %s, which is not there", v.Name, v.PersistentVolumeClaim.ClaimName)
		}
	}
	for _, m := range c.container().VolumeMounts {
		if _, ok := volumes[m.Name]; !ok {
			t.Errorf("volume %s is mounted, and is not there", m.Name)
		}
	}
	for _, e := range c.container().EnvFrom {
		if e.SecretRef == nil || e.SecretRef.Name != c.secret.Name {
			t.Errorf("the environment is from %+v, the Secret is %s", e, c.secret.Name)
		}
	}
	ports := map[string]int32{}
	for _, p := range c.container().Ports {
		ports[p.Name] = p.ContainerPort
	}
	listen := flag(t, c.container().Args, "--listen")
	if want := fmt.Sprintf(":%d", ports["http"]); listen != want {
		t.Errorf("--listen %s, and the port is %s", listen, want)
	}
	for what, port := range map[string]intstr.IntOrString{
		"liveness": c.container().LivenessProbe.HTTPGet.Port, "readiness": c.container().ReadinessProbe.HTTPGet.Port, "Service": c.service.Spec.Ports[0].TargetPort,
	} {
		if ports[port.StrVal] == 0 {
			t.Errorf("%s: the container has no port %q", what, port.String())
		}
	}
	notes := c.deployment.Spec.Template.Annotations
	if notes["prometheus.io/port"] != strings.TrimPrefix(listen, ":") {
		t.Errorf("Prometheus is told %v, and the port is %s", notes, listen)
	}
}

// TestRollout: a rollout ends, and leaves a driver the time that it takes.
func TestRollout(t *testing.T) {
	c := manifests(t)
	if n := c.deployment.Spec.Replicas; n == nil || *n != 1 {
		t.Error("not one replica")
	}
	// A successor that stands by is never ready. With maxUnavailable 0 nobody would end the one it waits for.
	switch s := c.deployment.Spec.Strategy; s.Type {
	case appsv1.RecreateDeploymentStrategyType:
	case appsv1.RollingUpdateDeploymentStrategyType:
		if u := s.RollingUpdate.MaxUnavailable; u == nil || u.IntValue() < 1 {
			t.Errorf("maxUnavailable %v: a rollout would wait for ever", u)
		}
	default:
		t.Errorf("strategy %q", s.Type)
	}
	grace, err := time.ParseDuration(flag(t, c.container().Args, "--grace"))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.pod().TerminationGracePeriodSeconds; s == nil || time.Duration(*s)*time.Second < grace+10*time.Second {
		t.Errorf("terminationGracePeriodSeconds does not leave ten seconds after --grace %s", grace)
	}
}

// TestRestricted: the pod passes the restricted pod security standard, and can
// write where the program writes.
func TestRestricted(t *testing.T) {
	c := manifests(t)
	pod, own := c.pod().SecurityContext, c.container().SecurityContext
	yes := func(b *bool) bool { return b != nil && *b }
	switch {
	case !yes(pod.RunAsNonRoot), pod.RunAsUser == nil, pod.SeccompProfile == nil, !yes(own.ReadOnlyRootFilesystem),
		own.AllowPrivilegeEscalation == nil, *own.AllowPrivilegeEscalation, own.Capabilities == nil, fmt.Sprint(own.Capabilities.Drop) != "[ALL]":
		t.Errorf("pod %+v, container %+v", pod, own)
	}
	image := dockerfile(t)
	if user := fmt.Sprintf("%d:%d", *pod.RunAsUser, *pod.RunAsGroup); user != image.user {
		t.Errorf("it runs as %s, the image's files are of %s", user, image.user)
	}
	if pod.FSGroup == nil || *pod.FSGroup != *pod.RunAsGroup {
		t.Error("the volume is not the group's")
	}
	mounts := map[string]corev1.VolumeMount{}
	for _, m := range c.container().VolumeMounts {
		mounts[m.MountPath] = m
	}
	for _, dir := range image.volumes {
		if m, ok := mounts[dir]; !ok || m.ReadOnly {
			t.Errorf("%s of the image is not mounted to write, and the root is read-only", dir)
		}
	}
	r := c.container().Resources
	if r.Requests.Memory().IsZero() || r.Limits.Memory().Cmp(*r.Requests.Memory()) != 0 || r.Requests.Cpu().IsZero() {
		t.Errorf("resources %+v", r)
	}
}

// TestProbes: the server answers at the paths of probes and Prometheus.
func TestProbes(t *testing.T) {
	c := manifests(t)
	s, err := server.Listen("127.0.0.1:0", server.NewStatus("clicks", time.Second, time.Now, nil), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for p, want := range map[string]int{
		c.container().LivenessProbe.HTTPGet.Path:                            http.StatusOK,
		c.container().ReadinessProbe.HTTPGet.Path:                           http.StatusServiceUnavailable, // it has not begun
		c.deployment.Spec.Template.Annotations["prometheus.io/path"]:        http.StatusOK,
		"/nothing-is-here-so-that-it-is-known-that-a-wrong-path-is-noticed": http.StatusNotFound,
	} {
		r, err := http.Get("http://" + s.Addr() + p)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%s: %s, want %d", p, r.Status, want)
		}
	}
}

// TestPipeline: the program takes the container's arguments, and the spec that is
// mounted where they say, with the Secret as environment.
func TestPipeline(t *testing.T) {
	c := manifests(t)
	for name, value := range c.secret.StringData {
		t.Setenv(name, value)
	}
	args := c.container().Args
	takes(t, args)
	dir, file := path.Split(args[1])
	for _, m := range c.container().VolumeMounts {
		if m.MountPath+"/" == dir && m.Name != "spec" {
			t.Errorf("%s is volume %s", dir, m.Name)
		}
	}
	text, ok := c.config.Data[file]
	if !ok {
		t.Fatalf("the ConfigMap has no %s", file)
	}
	spec := valid(t, []byte(text))
	if !strings.HasPrefix(spec.Checkpoint, dockerfile(t).volumes[0]+"/") {
		t.Errorf("the checkpoint %s is not on the volume", spec.Checkpoint)
	}
	limits := c.container().Resources.Limits
	if limit := limits.Memory().Value(); limit < int64(spec.Memory)*5/4 {
		t.Errorf("memory %d of the spec needs more than the container's limit of %d", spec.Memory, limit)
	}
	for name := range c.secret.StringData {
		if !strings.Contains(text, "${"+name+"}") {
			t.Errorf("the Secret has %s, which the spec does not use", name)
		}
	}
}
