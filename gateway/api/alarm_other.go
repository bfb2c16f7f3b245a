//go:build !linux

package api

import "time"

// alarm is a timer.
type alarm struct{}

func (*alarm) sleep(d time.Duration) { time.Sleep(d) }
