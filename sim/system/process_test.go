package system_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// process is a `doppel run`, or another command that runs a node.
type process struct {
	node.Addresses
	broker, kafka string // those its devices and readers use
	root, prefix  string // of MQTT topics, of Kafka topics
	name          string // of a member of a cluster
	calm          func() // ends a disturbance of its log; nil: none

	t    *testing.T
	args []string
	cmd  *exec.Cmd
	out  *os.File
	done chan struct{}
}

// clean is the environment without settings of ours.
func clean() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DOPPEL_") {
			env = append(env, kv)
		}
	}
	return env
}

// start runs a node and waits until it is ready. The process is gone at the end of the test.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return launch(t, args...).ready()
}

func (p *process) ready() *process {
	p.t.Helper()
	file := p.addressesFile()
	if !nodetest.Poll(func() bool { return p.ended() || p.read(file) }) || p.ended() {
		p.t.Fatalf("node is not ready:\n%s", p.log())
	}
	if p.broker == "" {
		p.broker, p.kafka = "mqtt://"+p.MQTT, p.Kafka
	}
	return p
}

// launch runs a node on free ports.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	return launchCommand(t, "run", args...)
}

func launchCommand(t *testing.T, command string, args ...string) *process {
	t.Helper()
	p := &process{t: t, args: args, root: "devices", prefix: "doppel.", done: make(chan struct{})}
	dir := t.TempDir()
	var err error
	if p.out, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	all := []string{
		command, "--addresses-file", filepath.Join(dir, "addresses"), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
		"--mqtt-addr", "127.0.0.1:0", "--kafka-addr", "127.0.0.1:0", "--node-addr", "127.0.0.1:0", "--partitions", "4",
	}
	p.cmd = exec.Command(binary, append(all, args...)...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = clean(), p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its exit code says it all
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("node %v:\n%s", args, p.log())
		}
		_ = p.out.Close()
	})
	return p
}

// startReal runs a node on the real services, with topics of its own.
func startReal(t *testing.T, args ...string) *process {
	t.Helper()
	s := nodetest.RealServices(t)
	root, prefix := nodetest.Unique("root"), nodetest.Unique("test")+"."
	p := start(t, append([]string{
		"--mqtt", s.MQTT, "--kafka", s.Kafka, "--questdb", s.QuestDB, "--group", nodetest.Unique("group"),
		"--topic-root", root, "--topic-prefix", prefix, "--data-dir", t.TempDir(),
	}, args...)...)
	p.broker, p.kafka, p.root, p.prefix = s.MQTT, s.Kafka, root, prefix
	return p
}

// again starts the node of p once more, with the same data and addresses.
func (p *process) again() *process {
	p.t.Helper()
	return p.relaunch().ready()
}

// relaunch is again for a node that may take long to be ready.
func (p *process) relaunch() *process {
	p.t.Helper()
	args := append(append([]string{}, p.args...), "--grpc-addr", p.GRPC, "--http-addr", p.HTTP)
	if p.broker == "mqtt://"+p.MQTT {
		args = append(args, "--mqtt-addr", p.MQTT, "--kafka-addr", p.Kafka)
	}
	next := launch(p.t, args...)
	next.Addresses, next.broker, next.kafka, next.root, next.prefix, next.name = p.Addresses, p.broker, p.kafka, p.root, p.prefix, p.name
	return next
}

func (p *process) addressesFile() string {
	return filepath.Join(filepath.Dir(p.out.Name()), "addresses")
}

func (p *process) read(file string) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	if err := json.Unmarshal(b, &p.Addresses); err != nil {
		p.t.Fatalf("addresses-file: %v: %q", err, b)
	}
	return true
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) log() string {
	b, err := os.ReadFile(p.out.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit is the exit code once the process ended, -1 after a kill.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("node still runs after %v", within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// result is what a program that ran to its end left.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a program to its end.
func run(t *testing.T, env []string, name string, args ...string) result {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: this test needs it: run make test", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(clean(), env...), &out, &errs
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a program that must end well, and gives what it printed.
func ok(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := run(t, nil, name, args...)
	if r.code != 0 {
		t.Fatalf("%s %v: exit code %d: %s%s", name, args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}
