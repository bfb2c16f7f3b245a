package api

import (
	"context"
	"errors"
	"regexp"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Commands sends commands to devices, wherever they are served.
type Commands interface {
	// Invoke returns the device's answer, or an error of package command or host.
	Invoke(ctx context.Context, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error)
}

// maxKey bounds an idempotency key, in bytes.
const maxKey = 128

var (
	commandName    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	idempotencyKey = regexp.MustCompile(`^[\x21-\x7e]{0,128}$`)
)

// InvokeCommand sends a command to a device and returns what the device says to it.
func (s *twinService) InvokeCommand(ctx context.Context, req *doppelv1.InvokeCommandRequest) (*doppelv1.InvokeCommandResponse, error) {
	if err := checkCommand(req); err != nil {
		return nil, err
	}
	if s.commands == nil {
		return s.UnimplementedTwinServiceServer.InvokeCommand(ctx, req)
	}
	return s.commands.Invoke(ctx, req)
}

func checkCommand(req *doppelv1.InvokeCommandRequest) error {
	if err := checkDevice("id", req.GetId()); err != nil {
		return err
	}
	switch {
	case req.GetName() == "":
		return invalid("name", "is required: the name of a command, such as reboot")
	case !commandName.MatchString(req.GetName()):
		return invalid("name", "%q is not the name of a command: want 1-64 characters of [A-Za-z0-9._-]", shorten(req.GetName()))
	}
	body, err := command.Body(req.GetBody())
	if err != nil {
		return invalid("body", "is not JSON: a number that is not finite, or a value without a kind")
	}
	if len(body) > command.MaxBody {
		return invalid("body", "has %d bytes as JSON, want at most %d", len(body), command.MaxBody)
	}
	if t := req.GetTimeout(); t != nil {
		if d := t.AsDuration(); t.CheckValid() != nil || d <= 0 || d > command.MaxTimeout {
			return invalid("timeout", "%v is out of range, want more than 0 and at most %v", d.Round(time.Millisecond), command.MaxTimeout)
		}
	}
	if !idempotencyKey.MatchString(req.GetIdempotencyKey()) {
		return invalid("idempotency_key", "want at most %d visible ASCII characters, such as a UUID", maxKey)
	}
	return nil
}

// commandStatus is the status of what became of a command instead of an answer; nil if err is none of that.
func commandStatus(err error) error {
	for _, o := range command.Outcomes() {
		if !errors.Is(err, o.Err) {
			continue
		}
		details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: o.Reason, Domain: auth.Domain}}
		if o.Retry {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
		}
		if errors.Is(o.Err, command.ErrKeyReused) {
			details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "idempotency_key", Description: "give each command a key of its own"},
			}})
		}
		return withDetails(o.Code, err.Error(), details...)
	}
	return nil
}
