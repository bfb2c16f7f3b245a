package auth

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain of the reasons in ErrorInfo.
const Domain = "doppel"

// Reasons in the ErrorInfo of a refusal.
const (
	ReasonMissing     = "CREDENTIALS_MISSING"
	ReasonInvalid     = "CREDENTIALS_INVALID"
	ReasonExpired     = "CREDENTIALS_EXPIRED"
	ReasonRevoked     = "CREDENTIALS_REVOKED"
	ReasonRole        = "ROLE_TOO_LOW"
	ReasonScope       = "SCOPED_IDENTITY"
	ReasonRate        = "RATE_LIMITED"
	ReasonWatches     = "TOO_MANY_WATCHES"
	ReasonIssuerAway  = "ISSUER_UNAVAILABLE"
	ReasonUnknownCall = "UNKNOWN_METHOD"
)

func refuse(code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

func refuseFor(after time.Duration, code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: Domain},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

func withDetails(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	st := status.New(code, text)
	// WithDetails fails only for code OK and for messages that can't be encoded.
	if d, err := st.WithDetails(details...); err == nil {
		st = d
	}
	return st.Err()
}
