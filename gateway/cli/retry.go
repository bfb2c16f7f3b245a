package cli

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// blindTries is how often a call is made whose answer is UNAVAILABLE and does not say when to try
	// again: nobody may be there at all.
	blindTries = 4
	blindFirst = 100 * time.Millisecond
	blindMost  = time.Second
)

// retryUnary makes a call again that is UNAVAILABLE. An answer that says when (RetryInfo) comes from a
// node which waits for a partition that moves: the call then has until its deadline, because a dead
// node's partitions are elsewhere only after some seconds.
func retryUnary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	pause := blindFirst
	for try := 1; ; {
		err := invoke(ctx, method, req, reply, conn, opts...)
		if status.Code(err) != codes.Unavailable {
			return err
		}
		wait, told := retryDelay(err)
		if !told {
			if try++; try > blindTries {
				return err
			}
			wait, pause = pause, min(2*pause, blindMost)
		}
		wait = wait/2 + rand.N(wait+1) // not all at once
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return err // it says more than that the time is over
		}
		if sleep(ctx, wait) != nil {
			return err
		}
	}
}

// retryDelay is what an error says about when to try again.
func retryDelay(err error) (time.Duration, bool) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(info.GetRetryDelay().AsDuration(), 10*time.Millisecond), true
		}
	}
	return 0, false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
