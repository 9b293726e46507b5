"""A playbook that gathers one JSONL over many hosts, Python on them or not.

A host that has the tool is asked; of any other its /proc files are read, and
the tool here answers.  A host that cannot be reached gets a line that says so:
`tdxreclaim fleet` counts every host.
"""

from __future__ import annotations

_SEPARATOR = "TDXRECLAIM-CPUINFO"

_PLAYBOOK = f"""\
# ansible-playbook -i inventory tdxreclaim.yml && tdxreclaim fleet tdxreclaim.jsonl
- hosts: all
  gather_facts: false
  ignore_unreachable: true
  tasks:
    - ansible.builtin.raw: >-
        tdxreclaim check --format jsonl --exit-zero 2>/dev/null ||
        {{ echo {_SEPARATOR}; cat /proc/cpuinfo; }}
      register: said
      ignore_errors: true
    - ansible.builtin.command:
        cmd: tdxreclaim check --from - --from-format cpuinfo --format jsonl --exit-zero
        stdin: "{{{{ said.stdout.split('{_SEPARATOR}')[1] }}}}"
      delegate_to: localhost
      register: read_here
      when: "'{_SEPARATOR}' in said.stdout | default('')"
      failed_when: false
      changed_when: false
    - ansible.builtin.copy:
        dest: "{{{{ playbook_dir }}}}/tdxreclaim.jsonl"
        content: >-
          {{% for host in ansible_play_hosts_all %}}{{% set one = hostvars[host] %}}
          {{% set unreached = {{'schema': 'tdxreclaim.error/1', 'error': {{'kind': 'unreachable',
             'what': host, 'why': one.said.msg | default('no answer'), 'exit_status': 3}}}} %}}
          {{% set text = one.read_here.stdout | default('') or one.said.stdout | default('') %}}
          {{{{ (unreached if text[:1] != '{{' else text | from_json)
             | combine({{'host_name': host}}) | to_json }}}}
          {{% endfor %}}
      delegate_to: localhost
      run_once: true
"""


def render() -> str:
    """Return the playbook."""
    return _PLAYBOOK
