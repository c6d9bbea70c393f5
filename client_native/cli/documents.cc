#include "client_native/cli/documents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <vector>

#include "base/nearest_name.h"
#include "base/troff.h"

namespace bigcast::cli {

namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return option->nonpositional(); });
}

std::vector<const CLI::Option*> arguments_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return !option->nonpositional(); });
}

std::string name_of(const CLI::Option* option) { return "--" + option->get_lnames().front(); }

bool takes_value(const CLI::Option* option) { return option->get_items_expected_max() > 0; }

bool takes_files(const CLI::App& command) {
  for (const CLI::Option* argument : arguments_of(command)) {
    if (argument->get_type_name().find("FILE") != std::string::npos) return true;
  }
  return false;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : options_of(app)) names.push_back(name_of(option));
  return names;
}

std::string bash_completion(const CLI::App& app) {
  std::string cases;
  for (const CLI::App* command : commands_of(app)) {
    cases += fmt::format("    {}) words+=' {}'{} ;;\n", command->get_name(),
                         fmt::join(option_names(*command), " "),
                         takes_files(*command) ? "; files=yes" : "");
  }
  return fmt::format(
      R"(# bash completion of bigcast; made by: bigcast completion bash
_bigcast() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command='' files='' word words='{globals}'
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in {alternatives}) command=$word; break ;; esac
  done
  case $command in
    '') words+=' {commands}' ;;
{cases}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $files && $current != -* ]]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}}
complete -o filenames -F _bigcast bigcast
)",
      fmt::arg("globals", fmt::join(option_names(app), " ")),
      fmt::arg("alternatives", fmt::join(command_names(app), "|")),
      fmt::arg("commands", fmt::join(command_names(app), " ")), fmt::arg("cases", cases));
}

std::string without(std::string text, const std::string& unwanted) {
  std::erase_if(text, [&](char c) { return unwanted.find(c) != std::string::npos; });
  return text;
}

std::string zsh_options(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : options_of(app)) {
    text += fmt::format(
        " '{}[{}]{}'", name_of(option), without(option->get_description(), "[]':"),
        takes_value(option) ? ":" + without(option->get_type_name(), ":'") + ":_files" : "");
  }
  return text;
}

std::string zsh_completion(const CLI::App& app) {
  std::string commands;
  std::string cases;
  for (const CLI::App* command : commands_of(app)) {
    const std::string& name = command->get_name();
    commands += fmt::format(" '{}:{}'", name, without(command->get_description(), "':"));
    cases += fmt::format("    {}) _arguments{}{} ;;\n", name, zsh_options(*command),
                         takes_files(*command) ? " '*:file:_files'" : " '*: :'");
  }
  return fmt::format(
      R"(#compdef bigcast
# zsh completion of bigcast; made by: bigcast completion zsh
_bigcast() {{
  local -a commands=({commands})
  local context state line
  _arguments -C{globals} '1: :->command' '*:: :->arguments'
  case $state in
    command) _describe command commands ;;
    arguments) case $words[1] in
{cases}    esac ;;
  esac
}}
_bigcast "$@"
)",
      fmt::arg("commands", commands), fmt::arg("globals", zsh_options(app)),
      fmt::arg("cases", cases));
}

std::string fish_options(const CLI::App& app, const std::string& condition) {
  std::string text;
  for (const CLI::Option* option : options_of(app)) {
    text +=
        fmt::format("complete -c bigcast{} -l {}{} -d '{}'\n", condition, name_of(option).substr(2),
                    takes_value(option) ? " -r" : "", without(option->get_description(), "'"));
  }
  return text;
}

std::string fish_completion(const CLI::App& app) {
  std::string text = "# fish completion of bigcast; made by: bigcast completion fish\n";
  text += "complete -c bigcast -n __fish_use_subcommand -f\n" + fish_options(app, "");
  for (const CLI::App* command : commands_of(app)) {
    const std::string& name = command->get_name();
    text += fmt::format("complete -c bigcast -n __fish_use_subcommand -a {} -d '{}'\n", name,
                        without(command->get_description(), "'"));
    text += fish_options(*command, fmt::format(" -n '__fish_seen_subcommand_from {}'", name));
  }
  return text;
}

std::string man_options(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : options_of(app)) {
    const std::string value = takes_value(option) ? " \\fI" + option->get_type_name() + "\\fR" : "";
    text += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", troff(name_of(option)), value,
                        troff(option->get_description()));
  }
  return text;
}

}  // namespace

Result<std::string> completion(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash_completion(app);
  if (shell == "zsh") return zsh_completion(app);
  if (shell == "fish") return fish_completion(app);
  return fail(ErrorCode::kInvalidArgument,
              did_you_mean(fmt::format("SHELL \"{}\": not bash, zsh or fish", shell),
                           nearest_name(shell, {"bash", "zsh", "fish"})));
}

std::string man_page(const CLI::App& app) {
  std::string text = fmt::format(
      ".TH BIGCAST 1 \"\" \"bigcast {}\"\n.SH NAME\nbigcast \\- put, get and look after blobs on "
      "Bigcast nodes\n.SH SYNOPSIS\n\\fBbigcast\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR …\n"
      ".SH OPTIONS\n",
      BIGCAST_VERSION);
  text += man_options(app) + ".SH COMMANDS\n";
  for (const CLI::App* command : commands_of(app)) {
    text += fmt::format(".SS bigcast {}", command->get_name());
    for (const CLI::Option* argument : arguments_of(*command)) {
      const std::string& type = argument->get_type_name();
      text += argument->get_required() ? " " + troff(type) : " [" + troff(type) + "]";
      if (argument->get_items_expected_max() > 1) text += " …";
    }
    text += fmt::format("\n{}.\n", troff(command->get_description()));
    for (const CLI::Option* argument : arguments_of(*command)) {
      text += fmt::format(".TP\n\\fI{}\\fR\n{}\n", troff(argument->get_type_name()),
                          troff(argument->get_description()));
    }
    text += man_options(*command);
  }
  return text + ".SH NOTES\n" + troff(app.get_footer()) + "\n";
}

}  // namespace bigcast::cli
