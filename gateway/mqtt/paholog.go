package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// pahoLog passes what paho logs on to ours.
type pahoLog struct {
	ctx   context.Context //nolint:containedctx // paho's logger interface has none
	log   *slog.Logger
	level slog.Level
}

// Println implements paho's log.Logger.
func (p pahoLog) Println(v ...any) { p.write(strings.TrimSpace(fmt.Sprintln(v...))) }

// Printf implements paho's log.Logger.
func (p pahoLog) Printf(format string, v ...any) { p.write(fmt.Sprintf(format, v...)) }

func (p pahoLog) write(text string) {
	p.log.Log(p.ctx, p.level, "mqtt client library", "text", strings.TrimSpace(text))
}
