package api

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func newCommandWorld(t *testing.T) *world {
	t.Helper()
	return newWorld(t, HubConfig{}, func(c *Config) {
		if commands, ok := c.Twins.(Commands); ok {
			c.Commands = commands
		}
	})
}

func TestInvokeCommand(t *testing.T) {
	w := newCommandWorld(t)
	w.Put(apitest.Twin("aa:bb", 2))
	req := &doppelv1.InvokeCommandRequest{
		Id: "aa:bb", Name: "Set.speed_1-2", Body: structpb.NewStringValue(strings.Repeat("x", command.MaxBody-2)),
		Timeout: durationpb.New(command.MaxTimeout), IdempotencyKey: strings.Repeat("~", 128),
	}
	reply, err := w.twins.InvokeCommand(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := reply.GetBody().GetStructValue().GetFields()["device"].GetStringValue(); reply.GetStatus() != 200 || got != "aa:bb" {
		t.Errorf("reply %v", reply)
	}
}

func TestInvokeCommandErrors(t *testing.T) {
	w := newCommandWorld(t)
	w.Put(apitest.Twin("a", 2))
	off := apitest.Twin("off", 1)
	off.Online = false
	w.Put(off)
	type request = doppelv1.InvokeCommandRequest
	for _, tc := range []struct {
		name  string
		req   *request
		code  codes.Code
		field string
	}{
		{"nothing", &request{}, codes.InvalidArgument, "id"},
		{"illegal id", &request{Id: "a/b", Name: "x"}, codes.InvalidArgument, "id"},
		{"no name", &request{Id: "a"}, codes.InvalidArgument, "name"},
		{"name of levels", &request{Id: "a", Name: "x/reply"}, codes.InvalidArgument, "name"},
		{"name of wildcards", &request{Id: "a", Name: "+"}, codes.InvalidArgument, "name"},
		{"name with a line end", &request{Id: "a", Name: "x\n"}, codes.InvalidArgument, "name"},
		{"long name", &request{Id: "a", Name: strings.Repeat("x", 65)}, codes.InvalidArgument, "name"},
		{"long body", &request{Id: "a", Name: "x", Body: structpb.NewStringValue(strings.Repeat("x", command.MaxBody-1))}, codes.InvalidArgument, "body"},
		{"body without a kind", &request{Id: "a", Name: "x", Body: &structpb.Value{}}, codes.InvalidArgument, "body"},
		{"body that is no number", &request{Id: "a", Name: "x", Body: structpb.NewNumberValue(math.Inf(1))}, codes.InvalidArgument, "body"},
		{"no time", &request{Id: "a", Name: "x", Timeout: durationpb.New(0)}, codes.InvalidArgument, "timeout"},
		{"negative time", &request{Id: "a", Name: "x", Timeout: durationpb.New(-time.Second)}, codes.InvalidArgument, "timeout"},
		{"long time", &request{Id: "a", Name: "x", Timeout: durationpb.New(command.MaxTimeout + 1)}, codes.InvalidArgument, "timeout"},
		{"time that is none", &request{Id: "a", Name: "x", Timeout: &durationpb.Duration{Seconds: math.MaxInt64}}, codes.InvalidArgument, "timeout"},
		{"long key", &request{Id: "a", Name: "x", IdempotencyKey: strings.Repeat("x", 129)}, codes.InvalidArgument, "idempotency_key"},
		{"key with a blank", &request{Id: "a", Name: "x", IdempotencyKey: "a b"}, codes.InvalidArgument, "idempotency_key"},
		{"unknown device", &request{Id: "b", Name: "x"}, codes.NotFound, ""},
		{"offline", &request{Id: "off", Name: "x"}, codes.FailedPrecondition, ""},
		{"no reply", &request{Id: "a", Name: "mute", Timeout: durationpb.New(time.Millisecond)}, codes.DeadlineExceeded, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := w.twins.InvokeCommand(t.Context(), tc.req)
			wantCode(t, err, tc.code, tc.field)
		})
	}
	mute := &request{Id: "a", Name: "mute", Timeout: durationpb.New(time.Minute)}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := w.twins.InvokeCommand(ctx, mute)
	wantCode(t, err, codes.Canceled, "")
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = w.twins.InvokeCommand(ctx, mute)
	wantCode(t, err, codes.DeadlineExceeded, "")
}

// TestErrorsOfCommands: each error of the port has its code, its reason, and says when to try again.
func TestErrorsOfCommands(t *testing.T) {
	for _, tc := range []struct {
		err    error
		code   codes.Code
		reason string
		field  string
		retry  bool
	}{
		{command.ErrOffline, codes.FailedPrecondition, "DEVICE_OFFLINE", "", false},
		{fmt.Errorf("%w: %w", command.ErrNoReply, context.DeadlineExceeded), codes.DeadlineExceeded, "NO_REPLY", "", false},
		{command.ErrExpired, codes.DeadlineExceeded, "NOT_SENT_IN_TIME", "", false},
		{command.ErrFull, codes.ResourceExhausted, "TOO_MANY_COMMANDS", "", false},
		{command.ErrTooLarge, codes.ResourceExhausted, "REPLY_TOO_LARGE", "", false},
		{command.ErrNotSent, codes.Unavailable, "NOT_SENT", "", true},
		{command.ErrUncertain, codes.Unavailable, "OUTCOME_UNKNOWN", "", true},
		{command.ErrKeyReused, codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED", "idempotency_key", false},
		{host.ErrUnavailable, codes.Unavailable, "", "", true},
	} {
		w := newCommandWorld(t)
		w.Fail(fmt.Errorf("command x of a: %w", tc.err))
		_, err := w.twins.InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: "a", Name: "x"})
		wantCode(t, err, tc.code, tc.field)
		reason, retry := "", false
		for _, d := range status.Convert(err).Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				reason = d.GetReason()
			case *errdetails.RetryInfo:
				retry = d.GetRetryDelay().AsDuration() > 0
			}
		}
		if tc.reason != "" && reason != tc.reason || retry != tc.retry {
			t.Errorf("%v: reason %q, retry %t", tc.err, reason, retry)
		}
	}
}

func TestNoCommands(t *testing.T) {
	w := newWorld(t, HubConfig{})
	_, err := w.twins.InvokeCommand(t.Context(), &doppelv1.InvokeCommandRequest{Id: "a", Name: "x"})
	wantCode(t, err, codes.Unimplemented, "")
}
