package router_test

import (
	"testing"

	"go.uber.org/goleak"
)

// A kfake that is closed while it controls a request leaves goroutines behind: one to a lock for a moment too long, and
// its own, which waits for the request. One that nobody closed still shows, by its listener.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).runControl.func1"),
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).continueSleptControl"),
		goleak.IgnoreTopFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).run"),
	)
}
