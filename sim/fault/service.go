package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// servicesScript starts real servers, also again on the data they left.
const servicesScript = "deploy/services/services"

// newService is Kafka, QuestDB or Mosquitto in a directory of its own, on a port of its own.
func newService(name Subject, root, dir string, port int, more ...string) *process {
	args := append([]string{"start", string(name), "--dir", dir, "--port", strconv.Itoa(port)}, more...)
	p := &process{name: name, dir: dir}
	p.start = func(ctx context.Context) error {
		// What is left of an attempt that failed would be in the way of the next.
		if err := p.kill(); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, filepath.Join(root, servicesScript), args...) //nolint:gosec // our own script
		cmd.Env = append(os.Environ(), "DOPPEL_SERVICES_HEAP=512m")
		var says bytes.Buffer
		cmd.Stderr = &says
		cmd.WaitDelay = 5 * time.Second // what it started may keep its end of the pipe
		if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(says.String()))
		}
		return nil
	}
	return p
}

// The ports of servers lie below those that the kernel gives to clients: a client must not take one while
// its server is away.
const (
	lowPort  = 10500
	highPort = 32000
)

// freePort finds a port that is free, with those at the given distances.
func freePort(ctx context.Context, random *device.Random, more ...int) (int, error) {
	for range 1000 {
		port := lowPort + random.Intn(highPort-lowPort)
		free := true
		for _, by := range append([]int{0}, more...) {
			free = free && portFree(ctx, port+by)
		}
		if free {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d", lowPort, highPort)
}

func portFree(ctx context.Context, port int) bool {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", local(port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
