package fault

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// guard ends the processes of a rig, and deletes its network namespaces, when this process dies without doing so, however it dies: a shell of
// its own that wakes when the pipe to it closes.
type guard struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

const guardScript = `cat >/dev/null
for pid in "$0"/*/pid; do
  dir=${pid%/pid} pid=$(cat "$pid") || continue
  [ "$(readlink "/proc/$pid/cwd")" != "$dir" ] || kill -9 "-$pid"
done
[ ! -e "$0/namespaces" ] || while read -r name; do
  [ ! -e "/run/netns/$name" ] || ip netns del "$name"
done <"$0/namespaces"`

func startGuard(dir string) (*guard, error) {
	cmd := exec.Command("sh", "-c", guardScript, dir) //nolint:noctx,gosec // it outlives every context; our own directory
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &guard{cmd: cmd, pipe: pipe}, nil
}

// close lets it do its work, and waits for that.
func (g *guard) close() {
	_ = g.pipe.Close()
	_ = g.cmd.Wait() // nothing left to kill is an error to it
}
