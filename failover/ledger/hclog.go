package ledger

import (
	"fmt"
	"io"
	"log"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLog carries raft's lines to zap under component=raft. What raft calls
// informative is detail to an operator: everything goes one level down, errors
// about an absent peer included, which come several times a second.
type raftLog struct {
	z    *zap.Logger
	name string
	args []any
}

func newRaftLog(z *zap.Logger) hclog.Logger {
	return &raftLog{z: z.With(zap.String("component", "raft")), name: "raft"}
}

func (r *raftLog) Log(level hclog.Level, msg string, args ...any) {
	to := zapcore.DebugLevel
	switch level {
	case hclog.Error:
		to = zapcore.WarnLevel
	case hclog.Warn:
		to = zapcore.InfoLevel
	}
	e := r.z.Check(to, msg)
	if e == nil {
		return
	}
	all := append(append([]any(nil), r.args...), args...)
	fields := make([]zap.Field, 0, len(all)/2)
	for i := 0; i+1 < len(all); i += 2 {
		fields = append(fields, zap.Any(fmt.Sprint(all[i]), loggable(all[i+1])))
	}
	e.Write(fields...)
}

// loggable copies what raft hands over while its own goroutines change it.
func loggable(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) > 0 {
			if f, ok := v[0].(string); ok {
				return fmt.Sprintf(f, v[1:]...)
			}
		}
	case error, string, bool, int, int64, uint64:
		return v
	case fmt.Stringer:
		return v.String()
	}
	return fmt.Sprint(v)
}

func (r *raftLog) Trace(msg string, args ...any) {}
func (r *raftLog) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r *raftLog) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r *raftLog) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r *raftLog) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

func (r *raftLog) IsTrace() bool        { return false }
func (r *raftLog) IsDebug() bool        { return r.z.Core().Enabled(zapcore.DebugLevel) }
func (r *raftLog) IsInfo() bool         { return r.IsDebug() }
func (r *raftLog) IsWarn() bool         { return r.z.Core().Enabled(zapcore.InfoLevel) }
func (r *raftLog) IsError() bool        { return r.z.Core().Enabled(zapcore.WarnLevel) }
func (r *raftLog) ImpliedArgs() []any   { return r.args }
func (r *raftLog) Name() string         { return r.name }
func (r *raftLog) SetLevel(hclog.Level) {}
func (r *raftLog) GetLevel() hclog.Level {
	if r.IsDebug() {
		return hclog.Debug
	}
	return hclog.Warn
}

func (r *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{z: r.z, name: r.name, args: append(append([]any(nil), r.args...), args...)}
}

func (r *raftLog) Named(name string) hclog.Logger {
	return &raftLog{z: r.z, name: r.name + "." + name, args: r.args}
}

func (r *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{z: r.z, name: name, args: r.args}
}

func (r *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return zap.NewStdLog(r.z)
}

func (r *raftLog) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return r.StandardLogger(o).Writer()
}
