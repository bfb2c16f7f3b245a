package api

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alarm is a timer of the kernel that is waited for as for a socket. Go's own are up to a millisecond late where the
// process has nothing else to do, and up to ten while it marks garbage: who marks because nothing else is to be done
// looks for what comes from sockets now and then, and not for timers. For one goroutine at a time.
type alarm struct {
	once sync.Once
	fd   int
	file *os.File // nil: there is none to be had
	buf  [8]byte
}

func (a *alarm) sleep(d time.Duration) {
	a.once.Do(a.open)
	if a.file != nil && unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil) == nil {
		if _, err := a.file.Read(a.buf[:]); err == nil {
			return
		}
	}
	time.Sleep(d)
}

// open makes the timer; the garbage collector closes it.
func (a *alarm) open() {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err == nil {
		a.fd, a.file = fd, os.NewFile(uintptr(fd), "timerfd")
	}
}
