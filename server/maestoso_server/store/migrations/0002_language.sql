-- The whole workflow language. Expand only: a server of the release before runs on this schema too.
COMMENT ON TABLE workflow IS 'One execution: what changes at every step.';
