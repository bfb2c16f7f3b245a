package command

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Outcome is an error of this package as callers elsewhere see it.
type Outcome struct {
	Err    error
	Code   codes.Code
	Reason string
	Retry  bool // another attempt, with the same key, makes sense at once
}

// Outcomes are all of them; the first that an error is counts.
func Outcomes() []Outcome {
	return []Outcome{
		{ErrOffline, codes.FailedPrecondition, "DEVICE_OFFLINE", false},
		{ErrNoReply, codes.DeadlineExceeded, "NO_REPLY", false},
		{ErrExpired, codes.DeadlineExceeded, "NOT_SENT_IN_TIME", false},
		{ErrFull, codes.ResourceExhausted, "TOO_MANY_COMMANDS", false},
		{ErrTooLarge, codes.ResourceExhausted, "REPLY_TOO_LARGE", false},
		{ErrNotSent, codes.Unavailable, "NOT_SENT", true},
		{ErrUncertain, codes.Unavailable, "OUTCOME_UNKNOWN", true},
		{ErrKeyReused, codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED", false},
	}
}

// defaultStatus is that of a reply which does not say one.
const defaultStatus = 200

// NewAnswer is a reply's content; status is its user property of that name.
func NewAnswer(status string, body []byte) Answer {
	a := Answer{Status: defaultStatus, Body: body}
	if n, err := strconv.ParseInt(status, 10, 32); err == nil {
		a.Status = int32(n)
	}
	return a
}

// Local invokes commands for devices of partitions that this node serves, as messages of the API.
type Local struct{ Book *Book }

// Invoke sends a command that was checked already, and returns what the device said.
func (l Local) Invoke(ctx context.Context, partition int32, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error) {
	body, err := Body(req.GetBody())
	if err != nil {
		return nil, err
	}
	a, err := l.Book.Invoke(ctx, &Command{
		Partition: partition, Device: req.GetId(), Name: req.GetName(), Body: body,
		Timeout: req.GetTimeout().AsDuration(), Key: req.GetIdempotencyKey(), Queue: req.GetQueueIfOffline(),
	})
	if err != nil {
		return nil, err
	}
	return &doppelv1.InvokeCommandResponse{Status: a.Status, Body: value(a.Body)}, nil
}

// Body is a command's body as the device gets it; none: nothing.
func Body(v *structpb.Value) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	b, err := v.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("body of a command: %w", err)
	}
	return compact(b), nil // its white space is random on purpose, and a repeated command must be the same
}
