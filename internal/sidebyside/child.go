package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// The roles of child processes: the first argument of this program.
const (
	roleSimulator = "simulator"
	roleContender = "contender"
)

// roles are what a child does. It ends when its standard input does, so that
// none outlives its parent.
var roles = map[string]func(ctx context.Context, in io.Reader, out io.Writer) error{
	roleSimulator: playSimulator,
	roleContender: playContender,
}

// child is a process of this program in another role. Parent and child speak
// in turns, in JSON values over the child's standard input and output.
type child struct {
	role    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	say     *json.Encoder
	hear    *json.Decoder
	errors  strings.Builder
	started time.Time
}

// start starts a child. env is added to the environment.
func start(ctx context.Context, role string, env ...string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	c := &child{role: role, cmd: exec.CommandContext(ctx, program, role)}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = &c.errors
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	c.say, c.hear = json.NewEncoder(c.in), json.NewDecoder(out)
	c.started = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	return c, nil
}

// ask tells the child something and waits for its answer.
func (c *child) ask(question, answer any) error {
	err := c.say.Encode(question)
	if err == nil {
		err = c.hear.Decode(answer)
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("speak with the %s: %w", c.role, err), c.end())
}

// end has the child end and waits for it.
func (c *child) end() error {
	_ = c.in.Close() // a child that is gone has closed it
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.role, err, strings.TrimSpace(c.errors.String()))
	}
	return nil
}
