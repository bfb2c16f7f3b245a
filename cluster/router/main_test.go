package router_test

import (
	"testing"

	"go.uber.org/goleak"
)

// A kfake that is closed while it controls a request leaves a goroutine to a lock for a moment too long.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).runControl.func1"),
		goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).continueSleptControl"),
	)
}
