package fault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one process of the system under test: the product or a server, alone in its process group.
// Its directory is its working directory, by which it is told from a stranger with a recycled number, and
// holds its file "pid".
type process struct {
	name Subject
	dir  string
	// start launches it; it may return before the process is ready.
	start func(ctx context.Context) error
	// patience is how long it may take to end; 0: termLimit.
	patience time.Duration

	fault sync.Mutex // held while a fault is under way: one at a time
}

const (
	// termLimit is how long a process may take to end on SIGTERM: what the product promises, and some.
	termLimit = 35 * time.Second
	// startLimit is how long it may take to start, on a busy machine and after a kill.
	startLimit = 2 * time.Minute
	pollEvery  = 10 * time.Millisecond
)

// errStubborn is a process that did not end on SIGTERM in time.
var errStubborn = errors.New("does not end on SIGTERM")

// pid is its number; 0: it does not run.
func (p *process) pid() int {
	text, err := os.ReadFile(filepath.Join(p.dir, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != p.dir {
		return 0
	}
	return pid
}

// signal reaches its whole group; false: it does not run.
func (p *process) signal(s syscall.Signal) bool {
	pid := p.pid()
	return pid != 0 && syscall.Kill(-pid, s) == nil
}

// gone waits until it has ended, however urgent anything else is: nothing may be left running.
func (p *process) gone() bool {
	for deadline := time.Now().Add(cmp.Or(p.patience, termLimit)); p.pid() != 0; time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// kill ends it at once.
func (p *process) kill() error {
	if p.signal(syscall.SIGKILL) && !p.gone() {
		return fmt.Errorf("%s: lives on after kill -9", p.name)
	}
	return nil
}

// terminate asks it to end, and kills it if it takes too long.
func (p *process) terminate() error {
	if !p.signal(syscall.SIGTERM) || p.gone() {
		return nil
	}
	return errors.Join(fmt.Errorf("%s: %w within %v", p.name, errStubborn, cmp.Or(p.patience, termLimit)), p.kill())
}

// pause stops it for a while.
func (p *process) pause(ctx context.Context, d time.Duration) {
	if p.signal(syscall.SIGSTOP) {
		sleep(ctx, d)
		p.signal(syscall.SIGCONT)
	}
}

// run starts it, trying again while it fails: what it needs may be away.
func (p *process) run(ctx context.Context) error {
	var first, err error
	if !await(ctx, startLimit, func() bool {
		err = p.start(ctx)
		first = cmp.Or(first, err)
		return err == nil
	}) {
		return fmt.Errorf("start %s: %w; at first: %w", p.name, errors.Join(err, ctx.Err()), first)
	}
	return nil
}

// await polls until ok holds; false: limit or ctx came first.
func await(ctx context.Context, limit time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(limit)
	for !ok() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		sleep(ctx, pollEvery)
	}
	return true
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
