package fault

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is a `doppel run` that is started again and again with the same data and addresses, as by a service
// manager: also when it ended by itself, which it may when it cannot start.
type node struct {
	process

	binary string
	args   []string
	grpc   string   // address of the API
	http   string   // address of readiness and metrics
	before []string // command line that the node is run by, as by a namespace

	mu        sync.Mutex // guards what follows
	doomed    map[int]bool
	closed    bool
	incidents []string
	failed    int // starts that did not get as far as serving
	exits     sync.WaitGroup
}

// restartAfter is how long a node that ended by itself stays away.
const restartAfter = 500 * time.Millisecond

func newNode(name Subject, dir, binary, grpcAddr, httpAddr string, args []string) *node {
	n := &node{binary: binary, args: args, grpc: grpcAddr, http: httpAddr, doomed: make(map[int]bool)}
	n.process = process{name: name, dir: dir, start: func(context.Context) error { return n.launch() }}
	return n
}

func (n *node) logFile() string { return filepath.Join(n.dir, "log") }

// served says whether the node that ran last ever got ready.
func (n *node) served() bool {
	_, err := os.Stat(filepath.Join(n.dir, addressesFile))
	return err == nil
}

func (n *node) launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.pid() != 0 {
		return nil
	}
	log, err := os.OpenFile(n.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	defer log.Close() //nolint:errcheck // the process has its own
	line := append(append(slices.Clone(n.before), n.binary), n.args...)
	cmd := exec.Command(line[0], line[1:]...) //nolint:noctx,gosec // ended by signals alone; the binary under test
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = n.dir, log, log, cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := os.RemoveAll(filepath.Join(n.dir, addressesFile)); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	pid := cmd.Process.Pid
	if err := os.WriteFile(filepath.Join(n.dir, "pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("node: %w", err)
	}
	n.exits.Go(func() {
		err := cmd.Wait()
		if n.ended(pid, err) {
			time.Sleep(restartAfter)
			_ = n.launch() // the next fault, or the judge, finds it missing
		}
	})
	return nil
}

// ended notes how a node ended; true: it should be started again.
func (n *node) ended(pid int, err error) (again bool) {
	served := n.served()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.doomed[pid]:
		return false
	case served:
		n.incidents = append(n.incidents, fmt.Sprintf("node %d served and ended by itself: %v", pid, err))
	default:
		n.failed++
	}
	return true
}

// close ends it for good.
func (n *node) close() {
	n.mu.Lock()
	n.closed = true
	n.doomed[n.pid()] = true
	n.mu.Unlock()
	_ = n.kill() // the guard tries again
	n.exits.Wait()
}

// failedStarts is how often it ended before it served.
func (n *node) failedStarts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failed
}

// addressesFile is written by the node once it is ready.
const addressesFile = "addresses"

// doom notes that the running process is about to be ended.
func (n *node) doom() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doomed[n.pid()] = true
}

// cleanEnv is the environment without settings of the product.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DOPPEL_") {
			env = append(env, kv)
		}
	}
	return env
}

// ready asks the node whether it serves.
func (n *node) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// complaints are what no fault excuses: ends that nobody asked for, panics, and replays that differ.
func (n *node) complaints() []string {
	n.mu.Lock()
	all := append([]string(nil), n.incidents...)
	n.mu.Unlock()
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return append(all, err.Error())
	}
	for _, sign := range []string{"panic: ", "fatal error: ", "replay differs", "twin panicked"} {
		if before, after, found := bytes.Cut(text, []byte(sign)); found {
			rest, _, _ := bytes.Cut(after, []byte("\n"))
			line := string(before[bytes.LastIndexByte(before, '\n')+1:]) + sign + string(rest)
			all = append(all, fmt.Sprintf("%d times in the node's log: %s", bytes.Count(text, []byte(sign)), line))
		}
	}
	return all
}
